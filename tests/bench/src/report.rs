//! The figures as a table, and whether they hold.

use std::fmt::Write as _;
use std::time::Duration;

use crate::NGINX;
use crate::direct::Direct;
use crate::large::Large;
use crate::load::Pass;
use crate::measure::{
    CROWD, Counts, Figures, HITS_AT_ONCE, Hits, MISSES, Measured, Passes, median,
};

/// MiB that stoa may hold at rest, and at most while clients pull all modules cold and warm.
const IDLE: f64 = 20.0;
const PEAK: f64 = 64.0;
/// What 99 of 100 hits may take while misses hang: twice what they take otherwise, but no less than this.
const HIT: Duration = Duration::from_millis(1);
/// How much longer the cold pass may take than nginx's, which checks nothing.
const COLD: f64 = 2.5;

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) proxied: Option<Proxied>,
    pub(crate) large: Option<Large>,
    pub(crate) direct: Option<Direct>,
}

/// In front of an upstream.
#[derive(Debug)]
pub(crate) struct Proxied {
    pub(crate) data: String,
    pub(crate) passes: Passes,
    /// Each with the figures of its rounds. Stoa is the first.
    pub(crate) servers: Vec<(String, Vec<Figures>)>,
    pub(crate) counts: Counts,
    pub(crate) hits: Hits,
}

/// One of the warm passes.
type WarmPass = fn(&Figures) -> &Measured;

/// A figure of one round.
type Rate = fn(&Figures) -> f64;

/// A figure that is promised.
pub(crate) struct Promise {
    pub(crate) text: String,
    pub(crate) holds: bool,
}

impl Report {
    pub(crate) fn holds(&self) -> bool {
        self.promises().iter().all(|promise| promise.holds)
    }

    fn promises(&self) -> Vec<Promise> {
        let proxied = self.proxied.iter().flat_map(Proxied::promises);
        let large = self.large.iter().flat_map(Large::promises);
        proxied.chain(large).chain(self.direct.iter().flat_map(Direct::promises)).collect()
    }

    /// What there is, each with a head.
    fn tables(&self) -> Vec<Vec<Vec<String>>> {
        let proxied = self.proxied.iter().map(Proxied::rows);
        let large = self.large.iter().map(Large::rows);
        proxied.chain(large).chain(self.direct.iter().map(Direct::rows)).collect()
    }

    pub(crate) fn terminal(&self) -> String {
        let mut text = String::new();
        for rows in self.tables() {
            let width = |column: usize| {
                rows.iter()
                    .filter_map(|row| row.get(column))
                    .map(|it| it.chars().count())
                    .max()
                    .unwrap_or(0)
            };
            let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
            for row in &rows {
                for (at, cell) in row.iter().enumerate() {
                    let width = widths[at];
                    _ = match at {
                        0 => write!(text, "{cell:width$}"),
                        _ => write!(text, "  {cell:>width$}"),
                    };
                }
                text.push('\n');
            }
            text.push('\n');
        }
        for (name, rounds) in self.proxied.iter().flat_map(|proxied| &proxied.servers) {
            for wrong in rounds.iter().flat_map(|figures| &figures.cold.pass.wrong) {
                _ = writeln!(text, "{name}, cold: {wrong}");
            }
        }
        for promise in self.promises() {
            let verdict = if promise.holds { "PASS" } else { "FAIL" };
            _ = writeln!(text, "{verdict}  {}", promise.text);
        }
        text
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text =
            "# Figures\n\nWritten by `just bench --write`; see [README.md](README.md).\n\n"
                .to_owned();
        let today = jiff::Zoned::now().date();
        _ = writeln!(text, "- {today}, {}", machine());
        if let Some(proxied) = &self.proxied {
            let rounds = proxied.servers.first().map_or(0, |(_, rounds)| rounds.len());
            _ = writeln!(
                text,
                "- {}; {} connections; the median of {rounds} rounds, the servers in turn",
                proxied.data, proxied.passes.connections
            );
        }
        if self.large.is_some() {
            _ = writeln!(text, "- {}", Large::summary());
        }
        if self.direct.is_some() {
            _ = writeln!(text, "- {}", Direct::summary());
        }
        text += "- Client, upstream and server share the cores; the processor time is the server's alone.\n\n";
        for rows in self.tables() {
            for (at, row) in rows.iter().enumerate() {
                _ = writeln!(text, "| {} |", row.join(" | "));
                if at == 0 {
                    _ = writeln!(text, "|---|{}", "---:|".repeat(row.len() - 1));
                }
            }
            text += "\n";
        }
        for promise in self.promises() {
            let verdict = if promise.holds { "PASS" } else { "FAIL" };
            _ = writeln!(text, "- {verdict}: {}", promise.text);
        }
        text + include_str!("../limits.md")
    }
}

impl Proxied {
    /// The median of a server's rounds.
    fn figure(&self, server: &str, of: &dyn Fn(&Figures) -> f64) -> Option<f64> {
        let (_, rounds) = self.servers.iter().find(|(name, _)| name == server)?;
        Some(median(rounds.iter().map(of).collect()))
    }

    fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        let mut promise = |text, holds| promises.push(Promise { text, holds });
        if let Some((name, rounds)) = self.servers.first() {
            let wrong: u64 = rounds
                .iter()
                .flat_map(|it| [&it.cold, &it.all, &it.zips, &it.small])
                .map(|it| it.pass.failed + it.pass.different)
                .sum();
            promise(
                format!("every answer right, bytes as the upstream's: {wrong} wrong"),
                wrong == 0,
            );
            let of = |of: &dyn Fn(&Figures) -> f64| self.figure(name, of).unwrap_or(f64::NAN);
            let (idle, peak) = (of(&|it| it.idle), of(&|it| it.peak));
            promise(format!("idle at most {IDLE} MiB: {idle:.1}"), idle <= IDLE);
            let clients = self.passes.connections;
            promise(
                format!("peak at most {PEAK} MiB, {clients} clients, cold and warm: {peak:.1}"),
                peak <= PEAK,
            );
            let rates: [(&str, Rate); 3] = [
                ("small files a second", |it| it.small.pass.requests_per_second()),
                ("bytes of zips a second", |it| it.zips.pass.megabytes_per_second()),
                ("requests a second of all", |it| it.all.pass.requests_per_second()),
            ];
            for (what, rate) in rates {
                let Some(nginx) = self.figure(NGINX, &rate) else { continue };
                let share = of(&rate) / nginx;
                promise(format!("{what}, as many as nginx: {share:.2}"), share >= 1.0);
            }
            let cold: Rate = |it| it.cold.pass.took.as_secs_f64();
            if let Some(nginx) = self.figure(NGINX, &cold) {
                let times = of(&cold) / nginx;
                promise(
                    format!(
                        "cold, at most {COLD} times nginx's time, which checks nothing: {times:.2}"
                    ),
                    times <= COLD,
                );
            }
        }
        let Counts { go_mods, zips, crowd, crowd_requests } = self.counts;
        promise(
            format!(
                "one upstream request for {CROWD} clients of one cold zip: {crowd_requests}, {crowd} served"
            ),
            crowd_requests == 1 && crowd == CROWD as u64,
        );
        promise(format!("no .zip fetched for {go_mods} .mod: {zips}"), zips == 0 && go_mods > 0);
        let Hits { hanging, small, zips, calm } = &self.hits;
        let times = |pass: &Pass| {
            let at = |percent| milliseconds(pass.percentile(percent));
            format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99))
        };
        promise(
            format!(
                "hits while {MISSES} cold misses hang ({hanging} to the end; {HITS_AT_ONCE} connections) at most twice \
                 as late as otherwise: small {}, zips {}; while none does: {}, {}",
                times(small),
                times(zips),
                times(&calm[0]),
                times(&calm[1])
            ),
            *hanging == MISSES
                && [small, zips].iter().zip(calm).all(|(it, calm)| {
                    let bound = HIT.max(calm.percentile(99) * 2);
                    it.failed == 0 && it.ok > 0 && it.percentile(99) <= bound
                }),
        );
        promises
    }

    /// The first row is the head; after the servers, stoa's share of each other one's figure.
    fn rows(&self) -> Vec<Vec<String>> {
        let names: Vec<_> = self.servers.iter().map(|(name, _)| name.clone()).collect();
        let ratios = names.iter().skip(1).map(|name| format!("stoa ÷ {name}"));
        let mut rows =
            vec![[String::new()].into_iter().chain(names.iter().cloned()).chain(ratios).collect()];
        let mut row = |name: &str, decimals: usize, figure: &dyn Fn(&Figures) -> f64| {
            let figures: Vec<_> =
                names.iter().map(|name| self.figure(name, figure).unwrap_or(f64::NAN)).collect();
            let texts = figures.iter().map(|it| format!("{it:.decimals$}"));
            let ratios = figures.iter().skip(1).map(|other| {
                let ratio = figures[0] / other;
                if ratio.is_finite() { format!("{ratio:.2}") } else { String::new() }
            });
            rows.push([name.to_owned()].into_iter().chain(texts).chain(ratios).collect());
        };
        row("start, ms", 0, &|it| milliseconds(it.start));
        row("idle, MiB", 1, &|it| it.idle);
        row("peak after cold, MiB", 1, &|it| it.cold_peak);
        row("peak, MiB", 1, &|it| it.peak);
        row("upstream requests, cold", 0, &|it| it.asked.total() as f64);
        row("most for one module's file", 0, &|it| it.asked.most_of_modules() as f64);
        row("most for one tile or record", 0, &|it| it.asked.most_of_sumdb() as f64);
        row("which it had not", 0, &|it| it.asked.absent as f64);
        row("cold, s", 2, &|it| it.cold.pass.took.as_secs_f64());
        row("cold, wrong", 0, &|it| (it.cold.pass.failed + it.cold.pass.different) as f64);
        row("cold, p50 ms", 2, &|it| milliseconds(it.cold.pass.percentile(50)));
        row("cold, p99 ms", 2, &|it| milliseconds(it.cold.pass.percentile(99)));
        row("cold, CPU s", 2, &|it| it.cold.cpu.as_secs_f64());
        let warm: [(&str, WarmPass); 3] =
            [("all", |it| &it.all), ("zips", |it| &it.zips), ("small", |it| &it.small)];
        for (name, of) in warm {
            row(&format!("{name}, requests/s"), 0, &|it| of(it).pass.requests_per_second());
            row(&format!("{name}, MB/s"), 1, &|it| of(it).pass.megabytes_per_second());
            row(&format!("{name}, p50 ms"), 2, &|it| milliseconds(of(it).pass.percentile(50)));
            row(&format!("{name}, p99 ms"), 2, &|it| milliseconds(of(it).pass.percentile(99)));
            row(&format!("{name}, CPU s/GiB"), 2, &|it| {
                of(it).cpu.as_secs_f64() * f64::from(1 << 30) / of(it).pass.bytes as f64
            });
            row(&format!("{name}, CPU µs/request"), 0, &|it| {
                of(it).cpu.as_secs_f64() * 1e6 / of(it).pass.ok as f64
            });
            row(&format!("{name}, wrong"), 0, &|it| of(it).pass.failed as f64);
        }
        rows
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn machine() -> String {
    let line = |file: &str, key: &str| -> Option<String> {
        let text = fs_err::read_to_string(file).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = line("/proc/meminfo", "MemTotal")
        .and_then(|it| it.trim_end_matches(" kB").parse::<u64>().ok())
        .map_or(0, |kib| kib.div_ceil(1024 * 1024));
    let kernel = line("/proc/sys/kernel/osrelease", "").unwrap_or_default();
    format!("{cores} cores of {model}, {memory} GiB, Linux {kernel}")
}
