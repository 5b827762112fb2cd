//! The first difference between two configurations.

use serde_json::Value;

/// A leaf that differs between two trees.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    /// Dotted path of the leaf.
    pub(crate) field: String,
    /// Its value in the first tree, `null` if absent.
    pub(crate) before: Value,
    /// Its value in the second tree, `null` if absent.
    pub(crate) now: Value,
}

/// The first leaf, in the order of keys, that differs and is not in a field that `may_change`.
pub(crate) fn first_difference(
    before: &Value,
    now: &Value,
    may_change: &dyn Fn(&str) -> bool,
) -> Option<Difference> {
    walk(String::new(), before, now, may_change)
}

fn walk(path: String, before: &Value, now: &Value, may_change: &dyn Fn(&str) -> bool) -> Option<Difference> {
    if before == now || may_change(&path) {
        return None;
    }
    if let (Value::Object(before), Value::Object(now)) = (before, now) {
        let added = now.keys().filter(|key| !before.contains_key(*key));
        return before.keys().chain(added).find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let [before, now] = [before, now].map(|tree| tree.get(key).unwrap_or(&Value::Null));
            walk(path, before, now, may_change)
        });
    }
    Some(Difference { field: path, before: before.clone(), now: now.clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_diff(before: Value, now: Value, expected: Option<&str>) {
        let found = first_difference(&before, &now, &|path| path == "run.free");
        assert_eq!(found.map(|difference| difference.field).as_deref(), expected);
    }

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        check_diff(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1, "c": 3}}), Some("a.c"));
        check_diff(json!({"a": 1}), json!({"a": 1}), None);
    }

    #[test]
    fn a_key_on_one_side_only_differs_unless_it_is_null() {
        check_diff(json!({"a": {}}), json!({"a": {"b": 1}}), Some("a.b"));
        check_diff(json!({"a": {"b": 1}}), json!({"a": {}}), Some("a.b"));
        check_diff(json!({"a": {"b": null}}), json!({"a": {}}), None);
    }

    #[test]
    fn free_fields_may_differ() {
        check_diff(json!({"run": {"free": 1, "x": 1}}), json!({"run": {"free": 2, "x": 1}}), None);
        check_diff(json!({"run": {"free": 1, "x": 1}}), json!({"run": {"free": 2, "x": 2}}), Some("run.x"));
    }
}
