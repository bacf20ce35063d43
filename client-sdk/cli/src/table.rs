//! Text in columns.

/// Rows of cells, the first column to the left and the others to the right, two blanks between.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<String>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<String>>().join("\n")
}

/// Names and values, values to the left.
pub(crate) fn list(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}")).collect::<Vec<String>>().join("\n")
}

/// Bytes with a unit.
pub(crate) fn bytes(n_bytes: u64) -> String {
    match n_bytes {
        0..10_000 => format!("{n_bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", n_bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", n_bytes as f64 / 1e6),
        _ => format!("{:.1} GB", n_bytes as f64 / 1e9),
    }
}

/// A duration, to three digits or so.
pub(crate) fn time(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        _ if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        _ if seconds < 100.0 => format!("{seconds:.2} s"),
        _ => format!("{}:{:02} min", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["layer".to_owned(), "12".to_owned()], vec!["a".to_owned(), "3".to_owned()]];
        assert_eq!(align(&rows), "layer  12\na       3");
        assert_eq!(list(&[("a", "x".into()), ("long", "y".into())]), "a     x\nlong  y");
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!([bytes(152), bytes(151_234), bytes(820_000_000)], ["152 B", "151.2 kB", "820.0 MB"]);
        let times = [Duration::from_micros(8500), Duration::from_millis(4321), Duration::from_secs(125)].map(time);
        assert_eq!(times, ["8.5 ms", "4.32 s", "2:05 min"]);
    }
}
