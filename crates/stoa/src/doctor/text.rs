//! A report for people: on a terminal with colour, elsewhere plain.

use std::fmt::Write as _;

use super::report::{Place, Report, SeenBy, State, Step, Told};

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) color: bool,
    /// Columns; long lines are wrapped.
    pub(super) width: usize,
    /// What is as it should be is told step by step too.
    pub(super) verbose: bool,
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "1;31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Where the words of a step begin.
const INDENT: usize = 30;
const NARROWEST: usize = 60;

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A paragraph whose first line begins behind `lead`, which is `indent` columns wide; with the code of its colour.
    fn paragraph(self, out: &mut String, lead: &str, indent: usize, text: &str) {
        let room = self.width.max(NARROWEST).saturating_sub(indent + 1);
        let mut lines = wrapped(text, room).into_iter();
        let _ = writeln!(out, "{lead}{}", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "{:indent$}{line}", "");
        }
    }
}

/// Words in lines of at most so many characters; a longer word has a line of its own.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(' ') {
        let wide = word.chars().count();
        if length > 0 && length + 1 + wide > room {
            lines.push(String::new());
            length = 0;
        }
        if let Some(line) = lines.last_mut() {
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += wide;
        }
    }
    lines
}

/// The whole report.
pub(super) fn render(report: &Report, style: Style) -> String {
    let mut out = String::new();
    let subject = report.subject.as_deref().unwrap_or("all that the settings name");
    let by = match report.seen_by {
        SeenBy::Server => format!("as the running server sees it (pid {})", report.pid),
        SeenBy::Command => "as this command sees it".to_owned(),
    };
    let _ = writeln!(out, "{}: {}", style.paint(BOLD, subject), by);
    if let Some(routed) = &report.routed {
        style.paragraph(&mut out, "", 0, &style.paint(DIM, routed));
    }
    let _ = writeln!(out);
    for place in &report.places {
        place_of(&mut out, place, style);
    }
    verdict(&mut out, report, style);
    out
}

fn place_of(out: &mut String, place: &Place, style: Style) {
    let worst = place.steps.iter().map(|step| rank(step.state)).max().unwrap_or(0);
    let mark = match worst {
        3 => style.paint(RED, "FAULT"),
        2 => style.paint(YELLOW, "note "),
        1 => style.paint(GREEN, "ok   "),
        _ => style.paint(DIM, "-    "),
    };
    let role = if place.role.is_empty() { String::new() } else { format!("  ({})", place.role) };
    let _ = write!(out, "{mark} {}", style.paint(BOLD, &place.name));
    let wide = 6 + place.name.chars().count() + role.chars().count();
    let between = if wide > style.width.max(NARROWEST) { "\n      " } else { "" };
    let _ = writeln!(out, "{between}{}", style.paint(DIM, &role));
    if worst <= 1 && !style.verbose {
        let steps: Vec<String> = place.steps.iter().map(short).collect();
        style.paragraph(out, "        ", 8, &steps.join(" · "));
    } else {
        for step in &place.steps {
            step_of(out, step, style);
        }
    }
}

fn rank(state: State) -> u8 {
    match state {
        State::Skipped => 0,
        State::Ok => 1,
        State::Note => 2,
        State::Bad => 3,
    }
}

/// `tcp 12 ms`, or what is not a matter of time.
fn short(step: &Step) -> String {
    // A unit is not wrapped away from its number.
    match step.took_ms.filter(|_| step.state == State::Ok) {
        Some(took) if took > 0 => format!("{}\u{a0}{took}\u{a0}ms", step.step),
        Some(_) => step.step.clone(),
        None => format!("{}: {}", step.step, step.seen),
    }
}

fn step_of(out: &mut String, step: &Step, style: Style) {
    let (code, word) = match step.state {
        State::Ok => (GREEN, "ok"),
        State::Note => (YELLOW, "note"),
        State::Bad => (RED, "FAULT"),
        State::Skipped => (DIM, "-"),
    };
    let took = step.took_ms.map_or(String::new(), |took| format!("{took} ms"));
    let word = style.paint(code, &format!("{word:<5}"));
    let lead = format!("        {:<15}{word} ", step.step);
    let lead = format!("{lead}{took:>9}  ");
    style.paragraph(out, &lead, INDENT + 10, &step.seen);
}

fn verdict(out: &mut String, report: &Report, style: Style) {
    let told = &report.verdict;
    let code = match (told.exit, told.stops) {
        (0, _) => "1;32",
        (_, true) => RED,
        (_, false) => YELLOW,
    };
    let at = told.place.as_ref().map_or(String::new(), |place| format!(" at {place}"));
    let note = if told.exit != 0 && !told.stops { ", which only costs time" } else { "" };
    let line = format!("{}{at}{note}", told.code);
    let _ = writeln!(out, "\n{} {}", style.paint(BOLD, "verdict"), style.paint(code, &line));
    let row = |out: &mut String, name: &str, text: &str| {
        let lead = format!("  {} ", style.paint(DIM, &format!("{name:<11}")));
        style.paragraph(out, &lead, 14, text);
    };
    for evidence in told.evidence.iter().take(4) {
        row(out, "evidence", evidence);
    }
    row(out, "cause", &told.cause);
    row(out, "what to do", &told.to_do);
    for other in &report.others {
        row(out, "besides", &other_of(other));
    }
    if told.exit != 0 && !report.ruled_out.is_empty() {
        row(out, "ruled out", &report.ruled_out.join("; "));
    }
    let _ = writeln!(
        out,
        "  {} exit {}",
        style.paint(DIM, &format!("{} ms,", report.took_ms)),
        told.exit
    );
}

fn other_of(told: &Told) -> String {
    let at = told.place.as_ref().map_or(String::new(), |place| format!(" at {place}"));
    let evidence = told.evidence.first().map_or(String::new(), |text| format!(": {text}"));
    format!("{}{at}{evidence}", told.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("", 7), [""]);
        assert_eq!(wrapped("a-very-long-word b", 4), ["a-very-long-word", "b"]);
    }
}
