//! The report for people: the verdict, then a table whose worst rows come first, then the lines to paste.

use std::fmt::Write as _;

use super::{ClientReport, Verdict};
use crate::doctor::mask::{LOGIN, cut};

const WIDTH: usize = 120;
/// A longer value is cut; the JSON has it whole.
const MAX_VALUE: usize = 36;
const MIN_SAYS: usize = 30;

struct Row<'r> {
    verdict: Verdict,
    name: &'r str,
    value: String,
    from: String,
    says: &'r str,
}

pub(super) fn render(report: &ClientReport, color: bool) -> String {
    let mut text = headline(report, color);
    text.push('\n');
    table(&mut text, rows(report), color);
    if report.go.is_none() {
        text.push_str("\nNo go command answered; these are its settings by its own rules.\n");
    }
    paste(&mut text, report, color);
    text
}

fn headline(report: &ClientReport, color: bool) -> String {
    let of = |verdict| {
        let settings = report.settings.iter().filter(|finding| finding.verdict == verdict).count();
        settings + report.questions.iter().filter(|question| question.verdict == verdict).count()
    };
    let stoa = report.stoa.as_deref().unwrap_or("stoa");
    let (defeats, weakens) = (of(Verdict::Defeats), of(Verdict::Weakens));
    let words = match (defeats, weakens) {
        (0, 0) => format!("fine: the go command on this machine uses {stoa}"),
        (0, n) => format!("{} the use of {stoa}", things(n, "weakens", "weaken")),
        (n, 0) => format!("{} the use of {stoa}", things(n, "defeats", "defeat")),
        (d, w) => {
            let also =
                if w == 1 { "1 more weakens it".to_owned() } else { format!("{w} more weaken it") };
            format!("{} the use of {stoa}, {also}", things(d, "defeats", "defeat"))
        }
    };
    format!("{}\n", painted(&words, bold(report.verdict), color))
}

fn things(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 thing {one}") } else { format!("{n} things {many}") }
}

fn rows(report: &ClientReport) -> Vec<Row<'_>> {
    let settings = report.settings.iter().map(|finding| Row {
        verdict: finding.verdict,
        name: finding.setting,
        value: cut(&finding.value, MAX_VALUE),
        from: finding.from.as_str().to_owned(),
        says: &finding.says,
    });
    let questions = report.questions.iter().map(|question| Row {
        verdict: question.verdict,
        name: question.question,
        value: cut(&question.asked, MAX_VALUE),
        from: format!("{} ms", question.milliseconds),
        says: &question.says,
    });
    let mut rows: Vec<_> = settings.chain(questions).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.verdict));
    rows
}

fn table(text: &mut String, rows: Vec<Row<'_>>, color: bool) {
    let width = |of: fn(&Row<'_>) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let name = width(|row| row.name.chars().count());
    let value = width(|row| row.value.chars().count());
    let from = width(|row| row.from.chars().count());
    let before = "defeats".len() + name + value + from + 4 * 2;
    let says = WIDTH.saturating_sub(before).max(MIN_SAYS);
    for row in rows {
        let verdict = painted(&format!("{:7}", row.verdict.as_str()), bold(row.verdict), color);
        let Row { name: setting, value: its, from: whence, .. } = &row;
        let mut lines = wrapped(row.says, says).into_iter();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(text, "{verdict}  {setting:name$}  {its:value$}  {whence:from$}  {first}");
        for line in lines {
            let _ = writeln!(text, "{:before$}{line}", "");
        }
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

fn paste(text: &mut String, report: &ClientReport, color: bool) {
    let lines = &report.lines;
    if lines.sh.is_empty() {
        return;
    }
    let title = match report.verdict {
        Verdict::Fine => "Nothing to mend. On a new machine:",
        _ => "This mends it:",
    };
    let _ = writeln!(text, "\n{}", painted(title, "1", color));
    let shown =
        report.settings.iter().map(|finding| finding.value.as_str()).chain(report.stoa.as_deref());
    if shown.into_iter().any(|shown| shown.contains(LOGIN)) {
        text.push_str(
            "A login is no part of these lines: the go command finds it in the netrc file.\n",
        );
    }
    for (name, lines) in [
        ("sh", &lines.sh),
        ("for good, stored by the go command", &lines.go_env),
        ("PowerShell", &lines.powershell),
        ("Dockerfile", &lines.dockerfile),
        ("GitHub Actions", &lines.github_actions),
        ("GitLab CI", &lines.gitlab_ci),
    ] {
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{}", painted(&format!("# {name}"), "2", color));
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
    }
}

fn bold(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fine => "32",
        Verdict::Weakens => "1;33",
        Verdict::Defeats => "1;31",
    }
}

fn painted(text: &str, style: &str, color: bool) -> String {
    if color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}
