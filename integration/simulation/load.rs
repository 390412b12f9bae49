//! What etcd says that it did, and what this process did.

use std::fs;

use crate::harness::Must as _;
use crate::harness::etcd::Etcd;

/// etcd's own figures: those that only grow, and those of a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EtcdState {
    /// Questions.
    pub(crate) ranges: f64,
    /// Writes by compare-and-set, whether they won or not.
    pub(crate) transactions: f64,
    /// Leases given, given back, and signs of life.
    pub(crate) leases: f64,
    /// Messages to those who follow.
    pub(crate) told: f64,
    /// Seconds of processors.
    pub(crate) cpu: f64,
    /// Who follows something.
    pub(crate) watchers: f64,
    /// Bytes of its database that are in use.
    pub(crate) bytes: f64,
    /// Bytes in memory.
    pub(crate) resident: f64,
}

impl EtcdState {
    /// Asks for it.
    pub(crate) async fn of(etcd: &Etcd) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().must("making an HTTP client");
        let answer = client.get(format!("{}/metrics", etcd.endpoint(0))).send().await.must("asking for etcd's figures");
        let text = answer.text().await.must("reading etcd's figures");
        let method = |name: &str| format!("grpc_method=\"{name}\"");
        Self {
            ranges: sum(&text, "grpc_server_started_total", &method("Range")),
            transactions: sum(&text, "grpc_server_started_total", &method("Txn")),
            leases: sum(&text, "grpc_server_msg_received_total", "etcdserverpb.Lease"),
            told: sum(&text, "grpc_server_msg_sent_total", &method("Watch")),
            cpu: sum(&text, "process_cpu_seconds_total", ""),
            watchers: sum(&text, "etcd_debugging_mvcc_watcher_total", ""),
            bytes: sum(&text, "etcd_mvcc_db_total_size_in_use_in_bytes", ""),
            resident: sum(&text, "process_resident_memory_bytes", ""),
        }
    }

    /// What has grown, since then.
    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            ranges: self.ranges - before.ranges,
            transactions: self.transactions - before.transactions,
            leases: self.leases - before.leases,
            told: self.told - before.told,
            cpu: self.cpu - before.cpu,
            ..self
        }
    }
}

/// All series of a figure whose labels name this.
fn sum(text: &str, figure: &str, label: &str) -> f64 {
    let series = text.lines().filter(|line| line.starts_with(figure) && line.contains(label));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Seconds of processors that this process has had. Linux counts them in hundredths for whoever reads.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").must("reading /proc/self/stat");
    let after_name = stat.rsplit_once(')').must("reading /proc/self/stat").1;
    let ticks = |at: usize| after_name.split_whitespace().nth(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).must("reading its user time") + ticks(12).must("reading its system time")) / 100.0
}

/// MiB that this process has in memory.
pub(crate) fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").must("reading /proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).must("finding VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().must("reading VmRSS") / 1024.0
}
