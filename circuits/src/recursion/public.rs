//! Public inputs of a node, in their one order, for values and for wires alike.

/// Number of public inputs of every node.
pub const N_NODE_PUBLIC: usize = 42;

/// Running values over the layers, at one end of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEnd<T> {
    /// Layers so far.
    pub index: T,
    /// Public chain.
    pub public: [T; 4],
    /// Secret chain.
    pub secret: [T; 4],
    /// Main chain.
    pub main: [T; 4],
}

/// The public inputs of a node; `T` is an element or a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePublic<T> {
    /// 0 inference, 1 registration.
    pub kind: T,
    /// Before the node's first layer.
    pub start: NodeEnd<T>,
    /// After the node's last layer.
    pub end: NodeEnd<T>,
    /// γ'.
    pub gamma_prime: [T; 2],
    /// δ.
    pub delta: [T; 2],
    /// Sum of the balances.
    pub balance: [T; 2],
    /// 1 if the boundary is inside.
    pub has_boundary: T,
    /// The boundary's payload, 0 without boundary.
    pub payload: [T; 4],
    /// Verifier-data digest of the join circuit, 0 for leaves.
    pub join_digest: [T; 4],
}

struct Reader<'a, T> {
    rest: &'a [T],
}

impl<T: Copy> Reader<'_, T> {
    fn take<const N: usize>(&mut self) -> Option<[T; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn one(&mut self) -> Option<T> {
        self.take::<1>().map(|[value]| value)
    }
}

impl<T: Copy> NodePublic<T> {
    /// The list that is published.
    pub fn to_vec(&self) -> Vec<T> {
        let (start, end) = (&self.start, &self.end);
        let mut list = vec![self.kind, start.index, end.index];
        let quads = [start.public, end.public, start.secret, end.secret, start.main, end.main];
        list.extend(quads.iter().flatten());
        list.extend([self.gamma_prime, self.delta, self.balance].iter().flatten());
        list.push(self.has_boundary);
        list.extend([self.payload, self.join_digest].iter().flatten());
        list
    }

    /// Reads the list back; `None` unless it has exactly [`N_NODE_PUBLIC`] elements.
    pub fn from_slice(list: &[T]) -> Option<Self> {
        let mut reader = Reader { rest: list };
        let [kind, start_index, end_index] = reader.take()?;
        let [start_public, end_public] = [reader.take()?, reader.take()?];
        let [start_secret, end_secret] = [reader.take()?, reader.take()?];
        let [start_main, end_main] = [reader.take()?, reader.take()?];
        let public = Self {
            kind,
            start: NodeEnd { index: start_index, public: start_public, secret: start_secret, main: start_main },
            end: NodeEnd { index: end_index, public: end_public, secret: end_secret, main: end_main },
            gamma_prime: reader.take()?,
            delta: reader.take()?,
            balance: reader.take()?,
            has_boundary: reader.one()?,
            payload: reader.take()?,
            join_digest: reader.take()?,
        };
        reader.rest.is_empty().then_some(public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_round_trips_and_refuses_other_lengths() {
        let list: Vec<usize> = (0..N_NODE_PUBLIC).collect();
        assert_eq!(NodePublic::from_slice(&list).map(|public| public.to_vec()), Some(list.clone()));
        assert_eq!(NodePublic::from_slice(&list[1..]), None);
        assert_eq!(NodePublic::from_slice(&[&list[..], &[0]].concat()), None);
    }
}
