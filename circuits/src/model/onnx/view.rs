//! Flatten and Reshape: in row-major order they move no element, so only the shape changes.

use super::messages::NodeProto;
use super::operator::{Attributes, NodeError, Value};
use super::tensor::Data;

/// The shape after `Flatten`.
pub(super) fn flatten(node: &NodeProto, shape: &[usize]) -> Result<Vec<usize>, NodeError> {
    let attributes = Attributes::of(node, &["axis"])?;
    let axis = attributes.int("axis", 1)?;
    let rank = shape.len() as i64;
    let position = if axis < 0 { axis.saturating_add(rank) } else { axis };
    match usize::try_from(position).ok().and_then(|position| shape.split_at_checked(position)) {
        Some((outer, inner)) => Ok(vec![outer.iter().product(), inner.iter().product()]),
        None => Err(NodeError::unsupported(format!("attribute axis={axis} does not fit the shape {shape:?}"))),
    }
}

/// The shape after `Reshape`.
pub(super) fn reshape(node: &NodeProto, shape: &[usize], target: Option<&Value>) -> Result<Vec<usize>, NodeError> {
    let attributes = Attributes::of(node, &["allowzero"])?;
    attributes.require_zero("allowzero")?;
    let target = match target {
        Some(Value::Constant(constant)) => match &constant.data {
            Data::Int64(values) if values.len() <= 8 => values,
            _ => return Err(NodeError::unsupported("the target shape must be int64, of at most 8 dimensions")),
        },
        Some(Value::Unknown) => return Err(NodeError::Unknown),
        _ => return Err(NodeError::unsupported("the target shape must be constant")),
    };
    resolve(shape, target).ok_or_else(|| NodeError::unsupported(format!("a tensor of shape {shape:?} cannot take the shape {target:?}")))
}

/// Fills in 0 (as before) and at most one −1 (the rest).
fn resolve(shape: &[usize], target: &[i64]) -> Option<Vec<usize>> {
    let total: usize = shape.iter().product();
    let mut known = 1usize;
    let mut rest_position = None;
    let mut dims = Vec::with_capacity(target.len());
    for (position, &dim) in target.iter().enumerate() {
        let dim = match dim {
            -1 if rest_position.is_none() => {
                rest_position = Some(position);
                1
            }
            0 => *shape.get(position)?,
            dim => usize::try_from(dim).ok()?,
        };
        known = known.checked_mul(dim)?;
        dims.push(dim);
    }
    if let Some(position) = rest_position {
        dims[position] = total.checked_div(known)?;
        known = known.checked_mul(dims[position])?;
    }
    (known == total).then_some(dims)
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn resolves_zero_and_minus_one() {
        assert_eq!(resolve(&[1, 4, 7], &[0, -1]), Some(vec![1, 28]));
        assert_eq!(resolve(&[1, 28], &[1, 4, 7]), Some(vec![1, 4, 7]));
        assert_eq!(resolve(&[5], &[]), None);
        assert_eq!(resolve(&[1], &[]), Some(vec![]));
    }

    #[test]
    fn refuses_shapes_of_another_size() {
        assert_eq!(resolve(&[1, 28], &[-1, -1]), None);
        assert_eq!(resolve(&[1, 28], &[3, -1]), None);
        assert_eq!(resolve(&[1, 28], &[1, 1, 0]), None);
        assert_eq!(resolve(&[1, 28], &[-2, 14]), None);
        assert_eq!(resolve(&[1, 28], &[i64::MAX, i64::MAX]), None);
        assert_eq!(resolve(&[0], &[0, -1]), None);
    }
}
