//! What the rooms know of themselves at the moment of a scrape.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric as _,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use stoa_core::Verifications;
use stoa_store::{Counts, SpoolCounts};
use stoa_upstream::{BreakerState, BreakerStatus, GitStatus, HostCounters, NameCounts};

use crate::http::App;

/// How long the index may take to count; it stands beside what is served, and a scrape has its own patience.
const PATIENCE: Duration = Duration::from_secs(2);

/// Read once for a scrape.
#[derive(Debug)]
pub(super) struct Snapshot {
    offline: bool,
    /// None while the index does not answer.
    stored: Option<Counts>,
    flights: [(&'static str, usize); 3],
    security_errors: u64,
    conflicts: u64,
    memory_bytes: u64,
    writable: bool,
    spool: SpoolCounts,
    verifications: Verifications,
    upstreams: Vec<HostCounters>,
    breakers: Vec<BreakerStatus>,
    git: GitStatus,
    names: NameCounts,
    process: Option<Process>,
}

impl Snapshot {
    pub(super) async fn take(app: &App) -> Self {
        let counting = tokio::time::timeout(PATIENCE, app.mirror.store().counts());
        Self {
            offline: app.offline,
            stored: counting.await.ok().and_then(Result::ok),
            flights: app.mirror.flights(),
            security_errors: app.mirror.database().map_or(0, stoa_core::Database::security_errors),
            conflicts: app.mirror.conflicts(),
            memory_bytes: app.mirror.store().memory_bytes(),
            writable: app.mirror.store().trouble().is_none(),
            spool: app.mirror.store().spool_counts(),
            verifications: app.mirror.verifications(),
            upstreams: app.mirror.client().counters(),
            breakers: app.mirror.client().breakers(),
            git: app.mirror.client().git(),
            names: app.mirror.client().names(),
            process: Process::read(app.started).ok(),
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("stoa_build_info", "Always 1; the program", &[(version, 1)])?;
        page.gauge("stoa_offline", "1 if nothing is fetched", i64::from(self.offline))?;
        let flights = self.flights.map(|(kind, flying)| ([("kind", kind)], flying as u64));
        page.gauges("stoa_flights", "What is being fetched or verified now", &flights)?;
        page.counter(
            "stoa_security_errors",
            "Times the checksum database contradicted itself",
            self.security_errors,
        )?;
        page.counter(
            "stoa_content_conflicts",
            "Times a source sent other content of a version than was first seen of it",
            self.conflicts,
        )?;
        if let Some(stored) = &self.stored {
            page.gauge(
                "stoa_stored_modules",
                "Modules of which something is stored",
                stored.modules,
            )?;
            page.gauge(
                "stoa_stored_versions",
                "Versions of which something is stored",
                stored.versions,
            )?;
            page.gauge(
                "stoa_stored_files",
                "Files of versions: .info, .mod and .zip",
                stored.artifacts,
            )?;
            page.with_unit("stoa_stored", "Bytes of those files", &Unit::Bytes, stored.bytes)?;
        }
        page.with_unit(
            "stoa_store_memory",
            "Small files, records and answers in memory",
            &Unit::Bytes,
            self.memory_bytes,
        )?;
        page.gauge(
            "stoa_disk_writable",
            "0 while the disk does not take what is written",
            i64::from(self.writable),
        )?;
        page.with_unit(
            "stoa_spool",
            "Memory of what is passed through while the disk cannot be written",
            &Unit::Bytes,
            self.spool.bytes,
        )?;
        page.counter(
            "stoa_passed_through",
            "Files handed out that the disk did not take",
            self.spool.passed,
        )?;
        page.counter(
            "stoa_passed_through_refused",
            "Files that the disk did not take and memory had no room for",
            self.spool.refused,
        )?;
        self.encode_verifications(&mut page)?;
        self.encode_upstreams(&mut page)?;
        self.encode_names(&mut page)?;
        self.encode_git(&mut page)?;
        if let Some(process) = &self.process {
            process.encode(&mut page)?;
        }
        Ok(())
    }
}

impl Snapshot {
    fn encode_verifications(&self, page: &mut Page<'_>) -> fmt::Result {
        let Verifications {
            verified,
            mismatch,
            no_record,
            unreachable,
            served_unverified,
            later_verified,
            later_rejected,
        } = self.verifications;
        let results = [
            ("verified", verified),
            ("mismatch", mismatch),
            ("no_record", no_record),
            ("unreachable", unreachable),
            ("served_unverified", served_unverified),
            ("later_verified", later_verified),
            ("later_rejected", later_rejected),
        ];
        page.counters(
            "stoa_verifications",
            "Files compared with the checksum database, by what came of it",
            None,
            &results.map(|(result, count)| ([("result", result)], count)),
        )?;
        let Some(stored) = &self.stored else { return Ok(()) };
        page.gauge(
            "stoa_unverified_files",
            "Stored while the checksum database was out of reach, and not verified yet",
            stored.unverified,
        )
    }

    /// The hosts are those of the settings: few, and no module's.
    fn encode_upstreams(&self, page: &mut Page<'_>) -> fmt::Result {
        let each = |count: fn(&HostCounters) -> u64| {
            let sample = move |one| (of(one), count(one));
            self.upstreams.iter().map(sample).collect::<Vec<_>>()
        };
        let by_outcome = self.upstreams.iter().flat_map(|one| {
            let [host, used_for] = of(one);
            one.requests
                .iter()
                .map(move |&(outcome, count)| ([host, used_for, ("outcome", outcome)], count))
        });
        page.counters(
            "stoa_upstream_requests",
            "Requests to upstreams by how they ended, however often they were tried",
            None,
            &by_outcome.collect::<Vec<_>>(),
        )?;
        let retries = each(|one| one.retries);
        page.counters("stoa_upstream_retries", "Tries after the first", None, &retries)?;
        page.counters(
            "stoa_upstream_received",
            "Bytes of bodies from upstreams",
            Some(&Unit::Bytes),
            &each(|one| one.bytes),
        )?;
        let probes = each(|one| one.probes);
        page.counters("stoa_upstream_probes", "Questions whether it is alive", None, &probes)?;
        page.counters(
            "stoa_upstream_breaker_opened",
            "Times its breaker opened",
            None,
            &each(|one| one.opened),
        )?;
        let states = self.breakers.iter().flat_map(|one| {
            [BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open].map(|state| {
                let labels = [
                    ("host", one.host.as_str()),
                    ("use", one.used_for.as_str()),
                    ("state", state.as_str()),
                ];
                (labels, u64::from(one.state == state))
            })
        });
        page.gauges(
            "stoa_upstream_breaker",
            "1 for the state of its breaker; while it is open the upstream is not asked",
            &states.collect::<Vec<_>>(),
        )
    }
}

impl Snapshot {
    /// Without hosts, as those of git.
    fn encode_names(&self, page: &mut Page<'_>) -> fmt::Result {
        let NameCounts { kept, looked_up, failed, stale } = self.names;
        page.gauge("stoa_names", "Names of hosts whose addresses are kept", kept)?;
        page.counter("stoa_name_lookups", "Names that the resolver was asked about", looked_up)?;
        page.counter("stoa_name_lookups_failed", "Those that brought no address", failed)?;
        page.counter(
            "stoa_names_stale",
            "Times that old addresses were used because the resolver brought none in time",
            stale,
        )
    }

    /// Without hosts: a module's path names any host, and a private one's name stays here.
    fn encode_git(&self, page: &mut Page<'_>) -> fmt::Result {
        let GitStatus { remote, local, moved_tags } = self.git;
        let kinds = [("remote", remote), ("local", local)];
        let ended = kinds.map(|(kind, commands)| {
            [("succeeded", commands.succeeded), ("failed", commands.failed)]
                .map(|(outcome, count)| ([("kind", kind), ("outcome", outcome)], count))
        });
        page.counters(
            "stoa_git_commands",
            "Runs of git, by whether they spoke to a remote and how they ended",
            None,
            ended.as_flattened(),
        )?;
        page.gauges(
            "stoa_git_commands_running",
            "Runs of git that are under way",
            &kinds.map(|(kind, commands)| ([("kind", kind)], commands.running as u64)),
        )?;
        page.counter(
            "stoa_git_moved_tags",
            "Times a tag was seen to have moved; what was first served under it stays",
            moved_tags,
        )
    }
}

fn of(one: &HostCounters) -> [(&'static str, &str); 2] {
    [("host", &one.host), ("use", one.used_for.as_str())]
}

/// Of this process, by the names that every Prometheus client library gives them.
#[derive(Debug)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_files: u64,
    max_files: u64,
    threads: i64,
    started: f64,
}

impl Process {
    /// From its own directory of `/proc` alone: a hardened service sees no other (`ProcSubset=pid`).
    fn read(started: jiff::Timestamp) -> procfs::ProcResult<Self> {
        let process = procfs::process::Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let max_files = match process.limits()?.max_open_files.soft_limit {
            procfs::process::LimitValue::Unlimited => u64::MAX,
            procfs::process::LimitValue::Value(most) => most,
        };
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            open_files: process.fd_count()? as u64,
            max_files,
            threads: stat.num_threads,
            started: started.as_millisecond() as f64 / 1e3,
        })
    }

    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter_with_unit(
            "process_cpu",
            "Processor time, of the system and of the program",
            &Unit::Seconds,
            self.cpu_seconds,
        )?;
        page.with_unit(
            "process_resident_memory",
            "Resident memory",
            &Unit::Bytes,
            self.resident_bytes,
        )?;
        page.with_unit(
            "process_virtual_memory",
            "Virtual memory",
            &Unit::Bytes,
            self.virtual_bytes,
        )?;
        page.gauge("process_open_fds", "Open files", self.open_files)?;
        page.gauge("process_max_fds", "Files that may be open", self.max_files)?;
        page.gauge("process_threads", "Threads", self.threads)?;
        page.with_unit("process_start_time", "Start, since 1970", &Unit::Seconds, self.started)
    }
}

/// Writes samples with few words.
struct Page<'e>(DescriptorEncoder<'e>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn counter_with_unit(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, Some(unit), MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        samples: &[([(&str, &str); N], u64)],
    ) -> fmt::Result {
        if samples.is_empty() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in samples {
            ConstCounter::new(*value).encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn with_unit(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, Some(unit), MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: &[([(&str, &str); N], u64)],
    ) -> fmt::Result {
        if samples.is_empty() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            ConstGauge::new(*value).encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }
}
