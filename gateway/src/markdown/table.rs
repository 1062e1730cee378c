//! Tables, for which Telegram has no form: columns of characters, shown as a block of code.

/// The widest column of a table, in characters; what is wider pushes its own row only.
const WIDEST: usize = 40;

/// The widest table, in characters, whose columns are aligned.
const WIDEST_TABLE: usize = 160;

/// The rows of a table with their cells below each other.
#[must_use]
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .filter(|width| *width <= WIDEST)
            .max()
            .unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..count).map(width).collect();
    if widths.iter().sum::<usize>() > WIDEST_TABLE {
        widths.fill(0);
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        line.join(" │ ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        let row = |row: &&[&str]| row.iter().map(|cell| (*cell).to_owned()).collect();
        rows.iter().map(row).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = rows(&[&["a", "bbb"], &["cc", "d"]]);
        assert_eq!(columns(&table), "a  │ bbb\ncc │ d");
    }

    #[test]
    fn a_very_wide_cell_pushes_only_its_own_row() {
        let wide = "x".repeat(WIDEST + 1);
        let table = rows(&[&["a", "b"], &[&wide, "c"]]);
        assert_eq!(columns(&table), format!("a │ b\n{wide} │ c"));
    }

    #[test]
    fn rows_of_different_lengths_are_taken() {
        assert_eq!(columns(&rows(&[&["a"], &["b", "c"], &[]])), "a\nb │ c\n");
    }
}
