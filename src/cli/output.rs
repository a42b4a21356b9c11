//! What people read: tables, sizes, times.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::exit::Failure;

/// Writes to stdout: a result.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Writes a line to stderr: a message. Nobody may be listening.
pub(super) fn note(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Whether somebody can be asked.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question that is answered with `y`. Without a terminal nobody is asked and the answer is yes.
pub(super) fn confirm(question: &str) -> Result<bool, Failure> {
    if !is_interactive() {
        return Ok(true);
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `1 event`, `3 events`
pub(super) fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// So many characters of a cell are shown: more than anything but a strange id has.
const CELL: usize = 1000;

/// Rows under headings, in columns as wide as their widest cell.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| cut(printable(&cell))).to_vec());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A user id may have a quarter of a megabyte. All of it is in what is printed as JSON.
fn cut(cell: String) -> String {
    match cell.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &cell[..end]),
        None => cell,
    }
}

/// Without control characters: what an app or Cello wrote must not steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// JSON on lines, its own text otherwise; control characters are escaped, as in [`printable`].
pub(super) fn laid_out(json: &str) -> String {
    let (mut text, mut depth) = (String::with_capacity(json.len() * 2), 0_usize);
    let (mut is_quoted, mut is_escaped) = (false, false);
    let line = |text: &mut String, depth: usize| text.extend(["\n", &"  ".repeat(depth)]);
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if is_quoted => {
                is_quoted = is_escaped || c != '"';
                is_escaped = !is_escaped && c == '\\';
                if c.is_control() { text.push_str(&format!("\\u{:04x}", u32::from(c))) } else { text.push(c) }
            }
            '{' | '[' => {
                text.push(c);
                while rest.next_if(|next| next.is_whitespace()).is_some() {}
                match rest.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c if c.is_whitespace() => {}
            c => {
                is_quoted = c == '"';
                text.push(c);
            }
        }
    }
    text
}

/// The two largest units: `2h 5m`.
pub(super) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_never_reach_the_terminal() {
        let mut table = Table::new(["ID", "MESSAGE"]);
        table.row(["1234".to_owned(), "a\x1b[31mb\n".to_owned()]);
        assert_eq!(table.render(), "ID    MESSAGE\n1234  a [31mb\n");
    }

    #[test]
    fn a_cell_of_any_length_can_be_shown() {
        let mut table = Table::new(["USER"]);
        table.row(["ü".repeat(100_000)]);
        assert_eq!(table.render(), format!("USER\n{}…\n", "ü".repeat(CELL)));
    }

    #[test]
    fn one_thing_is_not_called_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "event")), ["0 events", "1 event", "2 events"]);
    }

    #[test]
    fn json_is_laid_out_with_the_text_of_each_value_as_it_is() {
        let json = "{\"z\" :1.00, \"a\":\"\\\"{,:\u{9b}\",\n\"n\":[ ],\"a\":[{}, null]}";
        let laid_out =
            "{\n  \"z\": 1.00,\n  \"a\": \"\\\"{,:\\u009b\",\n  \"n\": [],\n  \"a\": [\n    {},\n    null\n  ]\n}";
        assert_eq!(super::laid_out(json), laid_out);
        assert_eq!(super::laid_out("\"[redacted]\""), "\"[redacted]\"");
    }

    #[test]
    fn ages_have_two_units() {
        let shown = [0, 59, 61, 7_500, 200_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "59s", "1m 1s", "2h 5m", "2d 7h"]);
    }
}
