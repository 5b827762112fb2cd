//! Words of other programs for what a configuration says here.

/// A key of another program's configuration.
struct Foreign {
    key: &'static str,
    /// Whose word it is.
    program: &'static str,
    /// Our key, or what to do instead.
    ours: &'static str,
}

const fn foreign(key: &'static str, program: &'static str, ours: &'static str) -> Foreign {
    Foreign { key, program, ours }
}

/// Keys of transformers' `TrainingArguments`, of TRL, axolotl, LLaMA-Factory and nanoGPT.
const FOREIGN: &[Foreign] = &[
    foreign("learning_rate", "transformers", "optimizer.lr"),
    foreign("min_learning_rate", "transformers", "optimizer.min_lr"),
    foreign("adam_beta1", "transformers", "optimizer.beta1"),
    foreign("adam_beta2", "transformers", "optimizer.beta2"),
    foreign("adam_epsilon", "transformers", "optimizer.eps"),
    foreign("max_grad_norm", "transformers", "optimizer.clip_norm"),
    foreign("gradient_clipping", "axolotl", "optimizer.clip_norm"),
    foreign("grad_clip", "nanoGPT", "optimizer.clip_norm"),
    foreign("optim", "transformers", "optimizer.kind"),
    foreign("lr_scheduler_type", "transformers", "optimizer.schedule"),
    foreign("lr_scheduler", "axolotl", "optimizer.schedule"),
    foreign("warmup_ratio", "transformers", "optimizer.warmup_ratio"),
    foreign("warmup_iters", "nanoGPT", "optimizer.warmup_steps"),
    foreign("num_train_epochs", "transformers", "run.epochs"),
    foreign("num_epochs", "axolotl", "run.epochs"),
    foreign("max_steps", "transformers", "run.steps"),
    foreign("max_iters", "nanoGPT", "run.steps"),
    foreign("gradient_accumulation_steps", "transformers", "run.accumulate"),
    foreign("gradient_checkpointing", "transformers", "run.activation_checkpointing"),
    foreign("output_dir", "transformers", "run.output"),
    foreign("out_dir", "nanoGPT", "run.output"),
    foreign("logging_steps", "transformers", "run.log_every"),
    foreign("bf16", "transformers", "run.precision = \"mixed\""),
    foreign("fp16", "transformers", "run.precision = \"mixed\", which is bf16"),
    foreign("per_device_train_batch_size", "transformers", "data.rows"),
    foreign("train_batch_size", "transformers", "data.rows times run.accumulate"),
    foreign("micro_batch_size", "axolotl", "data.rows"),
    foreign("batch_size", "nanoGPT", "data.rows"),
    foreign("max_tokens", "fairseq", "data.batch_tokens"),
    foreign("batch_type", "OpenNMT", "data.batch_tokens, a number of tokens"),
    foreign("dataloader_num_workers", "transformers", "data.workers"),
    foreign("num_workers", "PyTorch", "data.workers"),
    foreign("block_size", "nanoGPT", "data.context"),
    foreign("per_device_eval_batch_size", "transformers", "evaluate.rows"),
    foreign("eval_batch_size", "axolotl", "evaluate.rows"),
    foreign("eval_steps", "transformers", "evaluate.every"),
    foreign("eval_strategy", "transformers", "evaluate.every, a number of steps"),
    foreign("evaluation_strategy", "transformers", "evaluate.every, a number of steps"),
    foreign("eval_interval", "nanoGPT", "evaluate.every"),
    foreign("save_steps", "transformers", "checkpoint.every"),
    foreign("save_strategy", "transformers", "checkpoint.every, a number of steps"),
    foreign("save_total_limit", "transformers", "checkpoint.keep_last"),
    foreign("model_name_or_path", "transformers", "init.from"),
    foreign("base_model", "axolotl", "init.from"),
    foreign("model_name", "unsloth", "init.from"),
    foreign("lora_r", "axolotl", "adapter.rank"),
    foreign("lora_rank", "LLaMA-Factory", "adapter.rank"),
    foreign("lora_alpha", "peft", "adapter.alpha"),
    foreign("lora_dropout", "peft", "adapter.dropout"),
    foreign("lora_target", "LLaMA-Factory", "adapter.targets"),
    foreign("lora_target_modules", "axolotl", "adapter.targets"),
    foreign("target_modules", "peft", "adapter.targets"),
    foreign("use_rslora", "peft", "adapter.rslora"),
    foreign("use_dora", "peft", "adapter.dora"),
    foreign("load_in_8bit", "axolotl", "init.precision = \"int8\""),
    foreign("load_in_4bit", "axolotl", "init.precision = \"int4\""),
    foreign("tokenizer_name", "transformers", "data.tokenizer"),
    foreign("dataset", "LLaMA-Factory", "data.train"),
    foreign("datasets", "axolotl", "data.train"),
    foreign("train_file", "transformers", "data.train"),
    foreign("validation_file", "transformers", "data.valid"),
    foreign("test_datasets", "axolotl", "data.valid"),
    foreign("packing", "TRL", "data.packing"),
    foreign("eval_packing", "TRL", "data.packing, which is for both"),
    foreign("packing_strategy", "TRL", "data.packing = true, which is best-fit decreasing"),
    foreign("padding_free", "TRL", "data.packing"),
    foreign("sample_packing", "axolotl", "data.packing"),
    foreign("eval_sample_packing", "axolotl", "data.packing, which is for both"),
    foreign("neat_packing", "LLaMA-Factory", "data.packing"),
    foreign("group_by_length", "transformers", "data.length_groups"),
    foreign("sequence_len", "axolotl", "data.max_length"),
    foreign("cutoff_len", "LLaMA-Factory", "data.max_length"),
    foreign("max_seq_length", "unsloth", "data.max_length"),
    foreign("completion_only_loss", "TRL", "objective.learn"),
    foreign("assistant_only_loss", "TRL", "objective.learn"),
    foreign("train_on_inputs", "axolotl", "objective.learn = \"all\""),
    foreign("train_on_prompt", "LLaMA-Factory", "objective.learn = \"all\""),
    foreign("stage", "LLaMA-Factory", "objective.kind"),
    foreign("resume_from_checkpoint", "transformers", "the same command again, which resumes by itself"),
];

/// What to write in place of the key that an error of serde calls unknown, if it is another program's word.
pub(crate) fn hint(error: &str) -> Option<String> {
    let key = error.split("unknown field `").nth(1)?.split('`').next()?;
    let Foreign { program, ours, .. } = FOREIGN.iter().find(|foreign| foreign.key == key)?;
    Some(format!("{key} is the word of {program}: write {ours}"))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::config::TrainConfig;
    use crate::testing::CONFIG;

    #[test]
    fn words_of_other_programs_are_answered_with_ours() {
        let check = |set: &str, expected: &str| {
            let error = TrainConfig::parse(CONFIG, &[set.to_owned()]).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.source().unwrap().to_string().contains("unknown field"));
        };
        check(
            "optimizer.learning_rate=3e-4",
            "learning_rate is the word of transformers: write optimizer.lr",
        );
        check("run.num_train_epochs=3", "write run.epochs");
        check("run.gradient_checkpointing=true", "write run.activation_checkpointing");
        check("data.sample_packing=true", "sample_packing is the word of axolotl: write data.packing");
        check("packing=true", "packing is the word of TRL: write data.packing");
        check("micro_batch_size=8", "micro_batch_size is the word of axolotl: write data.rows");
        let unknown = TrainConfig::parse(CONFIG, &["run.colour=3".to_owned()]).unwrap_err();
        assert_eq!(unknown.to_string(), "the configuration is not a valid training configuration");
    }

    #[test]
    fn each_word_is_there_once_and_names_a_key_of_ours() {
        let config = TrainConfig::parse(CONFIG, &[]).unwrap();
        let tree = serde_json::to_value(&config).unwrap();
        for (at, foreign) in FOREIGN.iter().enumerate() {
            assert!(FOREIGN[..at].iter().all(|other| other.key != foreign.key), "{}", foreign.key);
            let table = foreign.ours.split('.').next().unwrap();
            let known = ["init", "objective", "adapter"].contains(&table) || tree.get(table).is_some();
            assert!(known || foreign.key == "resume_from_checkpoint", "{}", foreign.ours);
        }
    }
}
