//! From cells to the text that Prometheus scrapes (format 0.0.4). Runs once per scrape and never on the request path.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, Registry, TextEncoder};

use super::cells::DurationsRead;
use super::families::{FamilyDoc, Kind, families};
use super::{Cells, OUR_PREFIX};

/// The samples of one scrape, by family.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<&'static str, MetricFamily>);

impl Samples {
    #[expect(clippy::cast_precision_loss, reason = "the exposition format has only floating point numbers")]
    pub(super) fn counter(&mut self, family: &FamilyDoc, labels: &[&str], value: u64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value as f64);
        self.add(family, labels, |metric| metric.set_counter(counter));
    }

    #[expect(clippy::cast_precision_loss, reason = "the exposition format has only floating point numbers")]
    pub(super) fn gauge(&mut self, family: &FamilyDoc, labels: &[&str], value: i64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value as f64);
        self.add(family, labels, |metric| metric.set_gauge(gauge));
    }

    pub(super) fn histogram(&mut self, family: &FamilyDoc, labels: &[&str], read: DurationsRead) {
        let buckets = read.buckets.into_iter().map(|(bound, count)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(read.count);
        histogram.set_sample_sum(read.sum);
        self.add(family, labels, |metric| metric.set_histogram(histogram));
    }

    fn add(&mut self, family: &FamilyDoc, labels: &[&str], set: impl FnOnce(&mut Metric)) {
        let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        set(&mut metric);
        let of_family = self.0.entry(family.name).or_insert_with(|| {
            let mut empty = MetricFamily::default();
            empty.set_name(family.name.to_owned());
            empty.set_help(family.help.to_owned());
            empty.set_field_type(match family.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            empty
        });
        of_family.mut_metric().push(metric);
    }
}

/// Shows our cells to the registry.
struct Ours {
    cells: Arc<Cells>,
    descs: Vec<Desc>,
}

impl Collector for Ours {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Samples::default();
        self.cells.read(&mut samples);
        samples.0.into_values().collect()
    }
}

/// A registry with our families and those of the process.
pub(super) fn registry(cells: &Arc<Cells>) -> Result<Registry, prometheus::Error> {
    let descs = families().iter().filter(|family| family.name.starts_with(OUR_PREFIX)).map(|family| {
        let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new())
    });
    let ours = Ours { cells: Arc::clone(cells), descs: descs.collect::<Result<_, _>>()? };
    let registry = Registry::new();
    registry.register(Box::new(ours))?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

/// The whole exposition. A family without samples still shows its `HELP` and `TYPE`, so that dashboards and `promtool`
/// know it before its first event.
pub(super) fn render(registry: &Registry) -> Vec<u8> {
    let gathered = registry.gather();
    let mut gathered = gathered.iter().peekable();
    let mut text = Vec::with_capacity(16 * 1024);
    for family in families() {
        let sampled = gathered.next_if(|sampled| sampled.name() == family.name);
        // encoding into memory fails only for a family without name or samples, which the registry does not return
        let encoded = sampled.is_some_and(|it| TextEncoder::new().encode(std::slice::from_ref(it), &mut text).is_ok());
        if !encoded {
            text.extend_from_slice(b"# HELP ");
            text.extend_from_slice(format!("{} {}\n", family.name, family.help).as_bytes());
            text.extend_from_slice(format!("# TYPE {} {}\n", family.name, family.kind).as_bytes());
        }
    }
    text
}
