//! Named parts of circuits, so that a circuit's rows can be counted by purpose.
//!
//! plonky2 keeps the names in the builder and nowhere else: they change no circuit. A row that holds several operations (of arithmetic, of
//! selections from lists) counts for the part that opened it, whoever fills it.

use crate::field::Builder;

/// Adds a part of a circuit under a name.
pub(crate) fn part<T>(builder: &mut Builder, name: &str, build: impl FnOnce(&mut Builder) -> T) -> T {
    builder.push_context(log::Level::Debug, name);
    let built = build(builder);
    builder.pop_context();
    built
}

#[cfg(test)]
pub(crate) mod count {
    //! Reads the counts back: plonky2 gives them to the logger only.

    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::Builder;

    thread_local! {
        static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    }

    /// Keeps what its own thread logs while it counts.
    struct Lines;

    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata) -> bool {
            LINES.with_borrow(Option::is_some)
        }

        fn log(&self, record: &log::Record) {
            LINES.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.push(record.args().to_string())));
        }

        fn flush(&self) {}
    }

    fn logged(builder: &Builder) -> Vec<String> {
        // Fails if it is set already: then it is this one.
        let _ = log::set_logger(&Lines);
        log::set_max_level(log::LevelFilter::Trace);
        LINES.set(Some(Vec::new()));
        builder.print_gate_counts(0);
        LINES.take().unwrap_or_default()
    }

    /// Rows of each part without the parts inside it, by name; parts of one name are added.
    pub(crate) fn rows_by_part(builder: &Builder) -> BTreeMap<String, usize> {
        let mut rows = BTreeMap::new();
        // Names of the parts around the current one, outermost first.
        let mut around: Vec<String> = Vec::new();
        for line in logged(builder) {
            let Some((count, name)) = line.trim_start_matches("| ").split_once(" gates to ") else { continue };
            let depth = line.matches("| ").count();
            let count: usize = count.parse().expect("plonky2 counts");
            around.truncate(depth);
            if let Some(parent) = around.last() {
                *rows.get_mut(parent).expect("a parent precedes its parts") -= count;
            }
            *rows.entry(name.to_owned()).or_default() += count;
            around.push(name.to_owned());
        }
        rows
    }
}
