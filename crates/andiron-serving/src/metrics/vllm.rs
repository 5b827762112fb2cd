//! The metrics under vLLM's own names, for programs that read only those: llm-d's router and its like, recipes for KEDA, dashboards.
//!
//! A router reads one number of a server for each gauge: of several samples it takes the first. So gauges are one sample here, for all
//! models together, and counters and histograms are those of each model.
//!
//! Source: llm-d-router, `docs/model-server-protocol.md` and `extractor/metrics` (`getLatestMetric`), as of 2026-11; vLLM 0.22,
//! `vllm/v1/metrics/loggers.py`.

use std::sync::atomic::Ordering;

use super::{
    Exposition, Kind, NUMBERS, RUNNING_HELP, Shown, USAGE_HELP, WAITING_HELP, write_numbers, write_totals,
};

/// Before every name.
const PREFIX: &str = "vllm:";

/// Writes the metrics of `models`.
pub(crate) fn write(models: &[Shown<'_>], page: &mut Exposition) {
    page.rename(PREFIX);
    let names: Vec<&str> = models.iter().map(|model| model.name).collect();
    let names = names.join(",");
    let label = ("model_name", names.as_str());
    let mut gauge = |name: &str, help: &str, value: f64| {
        page.family(Kind::Gauge, name, help);
        page.sample(name, &[label], value);
    };
    gauge("num_requests_running", RUNNING_HELP, models.iter().map(|model| model.running as f64).sum());
    gauge("num_requests_waiting", WAITING_HELP, models.iter().map(|model| model.queued as f64).sum());
    let caches: Vec<Cache> = models.iter().filter_map(Cache::of).collect();
    let blocks: u64 = caches.iter().map(|cache| cache.blocks).sum();
    let used: f64 = caches.iter().map(|cache| cache.blocks as f64 * cache.usage).sum();
    gauge("kv_cache_usage_perc", USAGE_HELP, if blocks > 0 { used / blocks as f64 } else { 0.0 });
    if let Some(first) = caches.first() {
        let name = "cache_config_info";
        page.family(Kind::Gauge, name, "Positions per block of the KV cache, and its blocks, as labels.");
        let (block_len, blocks) = (first.block_len.to_string(), blocks.to_string());
        page.sample(name, &[label, ("block_size", &block_len), ("num_gpu_blocks", &blocks)], 1.0);
    }
    let counters: Vec<_> = NUMBERS.iter().filter(|(kind, ..)| *kind == Kind::Counter).copied().collect();
    write_numbers(models, &counters, page);
    write_totals(models, page);
}

/// The KV cache of a model.
struct Cache {
    block_len: u64,
    blocks: u64,
    usage: f64,
}

impl Cache {
    /// `None` for a model without one.
    fn of(model: &Shown<'_>) -> Option<Self> {
        let metrics = model.metrics;
        let block_len = metrics.kv_block_len.load(Ordering::Relaxed);
        let blocks = metrics.kv_blocks.load(Ordering::Relaxed);
        (block_len > 0).then(|| Self { block_len, blocks, usage: metrics.kv_cache_usage() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ModelMetrics;
    use super::*;

    fn page(models: &[Shown<'_>]) -> String {
        let mut page = Exposition::default();
        write(models, &mut page);
        page.into_text()
    }

    #[test]
    fn gauges_are_one_sample_for_all_models_and_counters_one_for_each() {
        let (first, second, encoder) =
            (ModelMetrics::default(), ModelMetrics::default(), ModelMetrics::default());
        first.set_kv_blocks(300, 64);
        first.set_kv_cache_usage(0.5);
        second.set_kv_blocks(100, 64);
        second.set_kv_cache_usage(0.1);
        second.add_prompt_tokens(7);
        let shown = |name, metrics, running, queued| Shown { name, metrics, running, queued };
        let text = page(&[shown("a", &first, 3, 2), shown("b", &second, 1, 4), shown("e", &encoder, 0, 1)]);
        for line in [
            "# TYPE vllm:num_requests_waiting gauge",
            "vllm:num_requests_running{model_name=\"a,b,e\"} 4",
            "vllm:num_requests_waiting{model_name=\"a,b,e\"} 7",
            "vllm:kv_cache_usage_perc{model_name=\"a,b,e\"} 0.4",
            "vllm:cache_config_info{model_name=\"a,b,e\",block_size=\"64\",num_gpu_blocks=\"400\"} 1",
            "vllm:prompt_tokens_total{model_name=\"a\"} 0",
            "vllm:prompt_tokens_total{model_name=\"b\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("vllm:num_requests_waiting{").count(), 1);
        assert!(!text.contains("andiron:"));
    }

    #[test]
    fn a_server_of_encoders_has_no_cache_to_describe() {
        let metrics = ModelMetrics::default();
        let text = page(&[Shown { name: "e", metrics: &metrics, running: 0, queued: 0 }]);
        assert!(text.contains("vllm:kv_cache_usage_perc{model_name=\"e\"} 0\n"), "{text}");
        assert!(!text.contains("cache_config_info"), "{text}");
    }
}
