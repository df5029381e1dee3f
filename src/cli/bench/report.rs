//! What was measured, for people and for programs.

use super::super::output::{number, table};
use super::workload::{Setting, Workload};
use candle_core::{Device, DeviceLocation};
use comfy_table::Table;
use serde_json::{Map, Value, json};

/// One workload as measured.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Measurement {
    pub workload: Workload,
    pub items_per_second: f64,
    /// Of the median call.
    pub seconds: f64,
    /// Median and 99th percentile of a request, in ms.
    pub latency_ms: Option<(f64, f64)>,
    /// Items per second of the same work without a server.
    pub in_process: Option<f64>,
}

impl Measurement {
    /// A median call of so many seconds, for so many items.
    pub(super) fn new(workload: Workload, items: f64, seconds: f64) -> Self {
        Self { workload, items_per_second: items / seconds, seconds, latency_ms: None, in_process: None }
    }

    /// GFLOP/s of the operations that are counted.
    fn gigaflops(&self) -> Option<f64> {
        Some(self.workload.cost()?.flop * self.items_per_second * 1e-9)
    }
}

/// cpu, or cuda:N.
pub(in crate::cli) fn device_name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".into(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// A rate in words.
pub(super) fn rate(m: &Measurement) -> String {
    format!("{} {}/s", grouped(m.items_per_second), m.workload.item())
}

pub(in crate::cli) fn measurements_json(measurements: &[Measurement], threads: usize, setting: &Setting) -> Value {
    let mut value = json!({ "threads": threads, "device": device_name(&setting.device) });
    let each = |f: &dyn Fn(&Measurement) -> Option<Value>| -> Map<String, Value> {
        measurements.iter().filter_map(|m| Some((m.workload.name(), f(m)?))).collect()
    };
    value["items_per_second"] = each(&|m| Some(json!({ "boltzflow": number(m.items_per_second) }))).into();
    value["flop_per_item"] = each(&|m| m.workload.cost().map(|c| number(c.flop))).into();
    value["byte_per_item"] = each(&|m| m.workload.cost().map(|c| number(c.byte))).into();
    if let Some((p50, p99)) = measurements.iter().find_map(|m| m.latency_ms) {
        value["latency_ms"] = json!({ "p50": number(p50), "p99": number(p99) });
    }
    let in_process = each(&|m| m.in_process.map(number));
    if !in_process.is_empty() {
        value["in_process_per_second"] = in_process.into();
    }
    value
}

pub(in crate::cli) fn measurements_table(measurements: &[Measurement]) -> Table {
    let ceiling = measurements.iter().find(|m| m.workload == Workload::Sgemm).and_then(Measurement::gigaflops);
    let rows: Vec<Vec<String>> = measurements
        .iter()
        .map(|m| {
            let share = m.gigaflops().zip(ceiling).map(|(g, c)| format!("{:.0} %", 100.0 * g / c));
            vec![
                m.workload.name(),
                rate(m),
                format!("{:.3} ms", 1e3 * m.seconds),
                m.gigaflops().map(|g| format!("{g:.1}")).unwrap_or_default(),
                share.unwrap_or_default(),
                remark(m),
            ]
        })
        .collect();
    table(&["workload", "rate", "median call", "GFLOP/s", "of sgemm", ""], &rows)
}

fn remark(m: &Measurement) -> String {
    if let Some((p50, p99)) = m.latency_ms {
        return format!("p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    match m.in_process {
        Some(rate) => format!("{:.2} × the rate in process", m.items_per_second / rate),
        None => String::new(),
    }
}

/// A number with its thousands apart.
fn grouped(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && digits.is_ascii() {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        let all = [0.4, 999.0, 1000.0, 258460.2, 1228039.0].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "258,460", "1,228,039"]);
    }
}
