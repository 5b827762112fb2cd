//! The size of a JSON schema once references and combinators are expanded, counted without building it.
//!
//! The grammar compiler keeps a bare `$ref` as it is, but expands a schema where it must be intersected with another
//! one: under `allOf`, beside other keywords, and where `anyOf` meets `anyOf`, each alternative with each. Every such
//! copy is a whole subtree, so a few lines can expand to billions of nodes. [`measure`] walks the schema as the
//! compiler does, but shares subtrees instead of copying them, and sums the sizes of the copies.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::bounds::{Bound, Exceeded};
use super::multiples;
use super::pattern::{self, Classes, PatternSize};
use super::shape::{Fields, Kind, Shared, pattern_weight, text_weight};

/// Keywords that do not restrict a value.
const ANNOTATIONS: &[&str] = &[
    "$anchor",
    "$defs",
    "definitions",
    "$schema",
    "$id",
    "id",
    "$comment",
    "title",
    "description",
    "default",
    "readOnly",
    "writeOnly",
    "examples",
    "contentMediaType",
    "contentEncoding",
];

/// Keywords that the compiler enforces; it ignores unknown ones.
const ENFORCED: &[&str] = &[
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "const",
    "enum",
    "type",
    "items",
    "additionalItems",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "additionalProperties",
    "patternProperties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Keywords that apply other schemas to the same value.
const IN_PLACE: &[&str] = &["const", "enum", "allOf", "anyOf", "oneOf", "$ref"];

const TYPES: &[&str] = &["null", "boolean", "number", "string", "array", "object"];

/// Why a schema is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Exceeded(Exceeded),
    /// It contains an invalid pattern.
    Pattern(String),
}

impl From<Exceeded> for Refused {
    fn from(exceeded: Exceeded) -> Self {
        Self::Exceeded(exceeded)
    }
}

/// Checks that the expanded `schema` is within its [`Bound`]s.
pub(super) fn measure(schema: &Value) -> Result<(), Refused> {
    let mut walk =
        Walk { root: schema, steps: 0, copied: 0, depth: 0, seen: HashSet::new(), defined: HashMap::new() };
    let root = walk.schema(schema)?;
    let whole = walk.defined.values().fold(root.size, |sum, shape| sum.saturating_add(shape.size));
    walk.copied = walk.copied.saturating_add(whole);
    Bound::Nodes.check(walk.copied)?;
    Ok(multiples::check(&root, &walk.defined)?)
}

struct Walk<'a> {
    root: &'a Value,
    steps: u64,
    /// Nodes that the compiler would copy.
    copied: u64,
    depth: u64,
    seen: HashSet<String>,
    defined: HashMap<String, Shared>,
}

impl<'a> Walk<'a> {
    fn step(&mut self) -> Result<(), Refused> {
        self.steps += 1;
        Ok(Bound::Steps.check(self.steps)?)
    }

    fn copy(&mut self, nodes: u64) -> Result<(), Refused> {
        self.copied = self.copied.saturating_add(nodes);
        Ok(Bound::Nodes.check(self.copied)?)
    }

    /// Runs `work` a level deeper.
    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Refused>) -> Result<T, Refused> {
        self.depth += 1;
        Bound::Depth.check(self.depth)?;
        let done = work(self);
        self.depth -= 1;
        done
    }

    fn schema(&mut self, schema: &'a Value) -> Result<Shared, Refused> {
        match schema {
            Value::Bool(true) => Ok(Kind::Any.shared()),
            Value::Object(keywords) => self.deeper(|walk| walk.keywords(keywords)),
            // `false`, or an invalid schema, which the compiler reports.
            _ => Ok(Kind::Never.shared()),
        }
    }

    fn keywords(&mut self, keywords: &'a Map<String, Value>) -> Result<Shared, Refused> {
        self.step()?;
        let speaks = |key: &String| ENFORCED.contains(&key.as_str()) && !ANNOTATIONS.contains(&key.as_str());
        if !keywords.keys().any(speaks) {
            return Ok(Kind::Any.shared());
        }
        let mut result = Kind::Any.shared();
        let mut plain: Vec<(&'a str, &'a Value)> = Vec::new();
        for (key, value) in keywords {
            let key = key.as_str();
            if IN_PLACE.contains(&key) {
                if !plain.is_empty() {
                    let shape = self.plain(keywords, &std::mem::take(&mut plain))?;
                    result = self.intersect(&result, &shape)?;
                }
                result = self.in_place(result, key, value)?;
            } else if !ANNOTATIONS.contains(&key) {
                plain.push((key, value));
            }
        }
        if !plain.is_empty() {
            let shape = self.plain(keywords, &plain)?;
            result = self.intersect(&result, &shape)?;
        }
        Ok(result)
    }

    fn in_place(&mut self, result: Shared, key: &str, value: &'a Value) -> Result<Shared, Refused> {
        match (key, value) {
            ("const", value) => {
                let shape = self.literal(value)?;
                self.intersect(&result, &shape)
            }
            ("enum", Value::Array(values)) => {
                Bound::Enum.check(values.len() as u64)?;
                let options = values.iter().map(|value| self.literal(value)).collect::<Result<_, _>>()?;
                self.intersect(&result, &Kind::AnyOf(options).shared())
            }
            ("allOf", Value::Array(schemas)) => {
                let mut result = result;
                for schema in schemas {
                    let shape = self.schema(schema)?;
                    result = self.intersect(&result, &shape)?;
                }
                Ok(result)
            }
            ("anyOf", Value::Array(schemas)) => {
                let options = schemas.iter().map(|schema| self.schema(schema)).collect::<Result<_, _>>()?;
                self.intersect(&result, &Kind::AnyOf(options).shared())
            }
            ("oneOf", Value::Array(schemas)) => {
                let options = schemas.iter().map(|schema| self.schema(schema)).collect::<Result<_, _>>()?;
                self.intersect(&result, &Kind::OneOf(options).shared())
            }
            ("$ref", Value::String(name)) => match result.kind {
                Kind::Any => {
                    self.define(name)?;
                    Ok(Kind::Ref(name.clone()).shared())
                }
                _ => self.resolved(name, &result),
            },
            // Wrong type, which the compiler reports.
            _ => Ok(result),
        }
    }

    /// Walks a referenced schema, once.
    fn define(&mut self, name: &str) -> Result<(), Refused> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(schema) = self.find(name) else { return Ok(()) };
        let shape = self.schema(schema)?;
        self.defined.insert(name.to_owned(), shape);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&'a Value> {
        if name == "#" || name == "#/" {
            return Some(self.root);
        }
        name.strip_prefix("#/")?.split('/').try_fold(self.root, |at, segment| match at {
            Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
            at => at.get(segment),
        })
    }

    /// Expands a reference that meets another schema.
    fn resolved(&mut self, name: &str, other: &Shared) -> Result<Shared, Refused> {
        self.define(name)?;
        // A cycle of unresolved references is an error of the compiler.
        let Some(shape) = self.defined.get(name).cloned() else { return Ok(Kind::Never.shared()) };
        self.copy(shape.size)?;
        self.intersect(&shape, other)
    }

    fn literal(&mut self, value: &Value) -> Result<Shared, Refused> {
        self.step()?;
        let kind = match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(_) => Kind::Number { multiple: 1, places: 0 },
            Value::String(text) => Kind::Text { weight: text_weight(text) },
            Value::Array(items) => {
                let prefix = items.iter().map(|item| self.literal(item)).collect::<Result<_, _>>()?;
                Kind::Array { prefix, items: Some(Kind::Never.shared()) }
            }
            Value::Object(fields) => {
                Bound::Properties.check(fields.len() as u64)?;
                let named = fields.iter().map(|(name, value)| Ok((name.clone(), self.literal(value)?)));
                Kind::Object(Fields {
                    named: named.collect::<Result<_, Refused>>()?,
                    required: fields.keys().cloned().collect(),
                    others: Some(Kind::Never.shared()),
                    ..Fields::default()
                })
            }
        };
        Ok(kind.shared())
    }

    /// Keywords of one schema that apply no other schema to the same value.
    fn plain(
        &mut self,
        all: &'a Map<String, Value>,
        plain: &[(&'a str, &'a Value)],
    ) -> Result<Shared, Refused> {
        let types: Vec<&str> = match all.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => TYPES.to_vec(),
        };
        let options = types.into_iter().map(|name| self.typed(name, plain)).collect::<Result<Vec<_>, _>>()?;
        Ok(match <[Shared; 1]>::try_from(options) {
            Ok([only]) => only,
            Err(options) => Kind::AnyOf(options).shared(),
        })
    }

    fn typed(&mut self, name: &str, plain: &[(&'a str, &'a Value)]) -> Result<Shared, Refused> {
        self.step()?;
        let keyword = |name| plain.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "number" | "integer" => match keyword("multipleOf").and_then(Value::as_f64) {
                Some(step) => multiple_of(step)?,
                None => Kind::Number { multiple: 1, places: 0 },
            },
            "string" => {
                let pattern = keyword("pattern").and_then(Value::as_str).map(checked_pattern).transpose()?;
                let format = if keyword("format").is_some() { FORMAT_WEIGHT } else { 0 };
                let length = if keyword("maxLength").or(keyword("minLength")).is_some() { 4 } else { 0 };
                Kind::Text { weight: 1 + pattern.map_or(0, pattern_weight) + format + length }
            }
            "array" => {
                let (prefix, items) = match (keyword("items"), keyword("prefixItems")) {
                    (Some(Value::Array(prefix)), _) => (Some(prefix), keyword("additionalItems")),
                    (items, prefix) => (prefix.and_then(Value::as_array), items),
                };
                let prefix = prefix.map(Vec::as_slice).unwrap_or_default();
                Bound::Properties.check(prefix.len() as u64)?;
                let prefix = prefix.iter().map(|item| self.schema(item)).collect::<Result<_, _>>()?;
                Kind::Array { prefix, items: items.map(|items| self.schema(items)).transpose()? }
            }
            "object" => Kind::Object(self.fields(plain)?),
            _ => Kind::Never,
        };
        Ok(kind.shared())
    }

    fn fields(&mut self, plain: &[(&'a str, &'a Value)]) -> Result<Fields, Refused> {
        let keyword = |name| plain.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let object = |name| keyword(name).and_then(Value::as_object);
        let mut named = Vec::new();
        for (name, schema) in object("properties").into_iter().flatten() {
            named.push((name.clone(), self.schema(schema)?));
        }
        let mut patterns = Vec::new();
        for (pattern, schema) in object("patternProperties").into_iter().flatten() {
            let weight = pattern_weight(checked_pattern(pattern)?);
            // Each name is matched with the pattern.
            self.copy(weight.saturating_mul(1 + named.len() as u64 / 8))?;
            patterns.push((pattern.clone(), self.schema(schema)?));
        }
        self.check_disjoint(&patterns)?;
        if let Some((_, largest)) = patterns.iter().max_by_key(|(_, shape)| shape.size).cloned() {
            for (_, shape) in &mut named {
                self.copy(largest.size)?;
                *shape = self.intersect(shape, &largest)?;
            }
        }
        let others = keyword("additionalProperties").map(|schema| self.schema(schema)).transpose()?;
        let required = keyword("required").and_then(Value::as_array);
        let required = required.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        self.checked_fields(Fields { named, patterns, others, required })
    }

    /// Compile time is quadratic in the number of names in one object.
    fn checked_fields(&mut self, fields: Fields) -> Result<Fields, Refused> {
        let missing = fields.required.len().saturating_sub(fields.named.len());
        let names = (fields.named.len() + missing) as u64;
        Bound::Properties.check(names)?;
        self.copy(names * names / 100)?;
        Ok(fields)
    }

    /// The compiler intersects each pattern for names with each other one.
    fn check_disjoint(&mut self, patterns: &[(String, Shared)]) -> Result<(), Refused> {
        Bound::PatternProperties.check(patterns.len() as u64)?;
        let pairs = (patterns.len() * patterns.len().saturating_sub(1) / 2) as u64;
        self.copy(pairs * PAIR_WEIGHT)
    }

    fn intersect(&mut self, left: &Shared, right: &Shared) -> Result<Shared, Refused> {
        self.step()?;
        let met = self.deeper(|walk| walk.meet(left, right))?;
        self.normalize(met)
    }

    fn meet(&mut self, left: &Shared, right: &Shared) -> Result<Shared, Refused> {
        Ok(match (&left.kind, &right.kind) {
            (Kind::Any, _) | (_, Kind::Never) => Rc::clone(right),
            (_, Kind::Any) | (Kind::Never, _) => Rc::clone(left),
            (Kind::Ref(name), _) => self.resolved(name, right)?,
            (_, Kind::Ref(name)) => self.resolved(name, left)?,
            (Kind::OneOf(options), _) => Kind::OneOf(self.each(options, right)?).shared(),
            (_, Kind::OneOf(options)) => Kind::OneOf(self.each(options, left)?).shared(),
            (Kind::AnyOf(options), _) => Kind::AnyOf(self.each(options, right)?).shared(),
            (_, Kind::AnyOf(options)) => Kind::AnyOf(self.each(options, left)?).shared(),
            (Kind::Text { weight: left }, Kind::Text { weight: right }) => {
                Kind::Text { weight: left.saturating_add(*right) }.shared()
            }
            (
                Kind::Array { prefix: left_prefix, items: left_items },
                Kind::Array { prefix: right_prefix, items: right_items },
            ) => {
                let any = Kind::Any.shared();
                let len = left_prefix.len().max(right_prefix.len());
                let mut prefix = Vec::with_capacity(len);
                for at in 0..len {
                    let left = left_prefix.get(at).or(left_items.as_ref()).unwrap_or(&any);
                    let right = right_prefix.get(at).or(right_items.as_ref()).unwrap_or(&any);
                    self.copy(left.size.saturating_add(right.size))?;
                    prefix.push(self.intersect(left, right)?);
                }
                let items = self.either(left_items, right_items)?;
                Kind::Array { prefix, items }.shared()
            }
            (Kind::Object(left), Kind::Object(right)) => Kind::Object(self.merge(left, right)?).shared(),
            (
                Kind::Number { multiple: left, places: left_places },
                Kind::Number { multiple: right, places: right_places },
            ) => {
                let apart = 10u64.saturating_pow(left_places.abs_diff(*right_places));
                let both =
                    left.saturating_mul(*right).saturating_mul(if *left.min(right) > 1 { apart } else { 1 });
                Bound::Multiple.check(both)?;
                Kind::Number { multiple: both, places: *left_places.max(right_places) }.shared()
            }
            (Kind::Null, Kind::Null) | (Kind::Boolean, Kind::Boolean) => Rc::clone(left),
            _ => Kind::Never.shared(),
        })
    }

    /// Each alternative with a copy of `other`.
    fn each(&mut self, options: &[Shared], other: &Shared) -> Result<Vec<Shared>, Refused> {
        let mut met = Vec::with_capacity(options.len());
        for option in options {
            self.copy(other.size)?;
            met.push(self.intersect(option, other)?);
        }
        Ok(met)
    }

    fn either(&mut self, left: &Option<Shared>, right: &Option<Shared>) -> Result<Option<Shared>, Refused> {
        Ok(match (left, right) {
            (Some(left), Some(right)) => Some(self.intersect(left, right)?),
            (left, right) => left.clone().or_else(|| right.clone()),
        })
    }

    fn merge(&mut self, left: &Fields, right: &Fields) -> Result<Fields, Refused> {
        let any = Kind::Any.shared();
        let mut named = Vec::with_capacity(left.named.len() + right.named.len());
        let names: HashSet<&str> = left.named.iter().map(|(name, _)| name.as_str()).collect();
        for (name, shape) in &left.named {
            let other = right.find(name).unwrap_or_else(|| Rc::clone(&any));
            self.copy(other.size)?;
            named.push((name.clone(), self.intersect(shape, &other)?));
        }
        for (name, shape) in right.named.iter().filter(|(name, _)| !names.contains(name.as_str())) {
            let other = left.find(name).unwrap_or_else(|| Rc::clone(&any));
            self.copy(other.size)?;
            named.push((name.clone(), self.intersect(&other, shape)?));
        }
        let mut patterns: Vec<(String, Shared)> = Vec::new();
        for (side, other) in [(left, right), (right, left)] {
            for (pattern, shape) in &side.patterns {
                if patterns.iter().any(|(known, _)| known == pattern) {
                    continue;
                }
                let twin = other.patterns.iter().find(|(known, _)| known == pattern).map(|(_, twin)| twin);
                let shape = match twin.or(other.others.as_ref()) {
                    Some(other) => {
                        self.copy(other.size)?;
                        self.intersect(shape, &Rc::clone(other))?
                    }
                    None => Rc::clone(shape),
                };
                patterns.push((pattern.clone(), shape));
            }
        }
        self.check_disjoint(&patterns)?;
        let others = self.either(&left.others, &right.others)?;
        let mut required = left.required.clone();
        let known: HashSet<&str> = left.required.iter().map(String::as_str).collect();
        required.extend(right.required.iter().filter(|name| !known.contains(name.as_str())).cloned());
        self.checked_fields(Fields { named, patterns, others, required })
    }

    fn normalize(&mut self, shape: Shared) -> Result<Shared, Refused> {
        let (options, one) = match &shape.kind {
            Kind::AnyOf(options) => (options, false),
            Kind::OneOf(options) => (options, true),
            _ => return Ok(shape),
        };
        if !one && options.iter().any(|option| matches!(option.kind, Kind::Any)) {
            return Ok(Kind::Any.shared());
        }
        let mut flat: Vec<Shared> = Vec::with_capacity(options.len());
        for option in options {
            match (&option.kind, one) {
                (Kind::Never, _) => {}
                (Kind::AnyOf(nested), false) | (Kind::OneOf(nested), true) => {
                    flat.extend(nested.iter().cloned())
                }
                _ => flat.push(Rc::clone(option)),
            }
        }
        if one {
            // The compiler would intersect these to test whether they are disjoint.
            let multiples = flat.iter().map(|option| match option.kind {
                Kind::Number { multiple, .. } => multiple,
                _ => 1,
            });
            Bound::Multiple.check(multiples.fold(1, u64::saturating_mul))?;
            // The compiler compares each with each, down to their leaves.
            let total = flat.iter().fold(0u64, |sum, option| sum.saturating_add(option.size));
            let squares = flat
                .iter()
                .fold(0u64, |sum, option| sum.saturating_add(option.size.saturating_mul(option.size)));
            let pairs = total.saturating_mul(total).saturating_sub(squares) / 2;
            self.copy(pairs / PAIRS_PER_NODE)?;
        }
        Ok(match (flat.len(), one) {
            (0, _) => Kind::Never.shared(),
            (1, _) => flat.remove(0),
            (_, false) => Kind::AnyOf(flat).shared(),
            (_, true) => Kind::OneOf(flat).shared(),
        })
    }
}

/// Cost of a `format`: the expressions behind the names have up to a few hundred characters.
const FORMAT_WEIGHT: u64 = 40;

/// Cost of testing two name patterns for disjointness.
const PAIR_WEIGHT: u64 = 500;

/// Comparisons of two leaves of a `oneOf` that take as long as copying a node.
const PAIRS_PER_NODE: u64 = 400;

/// `multipleOf` as the compiler decomposes it; each remainder is a state.
fn multiple_of(step: f64) -> Result<Kind, Refused> {
    let (mut whole, mut places) = (step.abs(), 0);
    while whole.fract() != 0.0 {
        whole *= 10.0;
        places += 1;
    }
    let multiple = whole as u64;
    Bound::Multiple.check(multiple)?;
    Ok(Kind::Number { multiple: multiple.max(1), places })
}

fn checked_pattern(pattern: &str) -> Result<PatternSize, Refused> {
    Bound::PatternBytes.check(pattern.len() as u64)?;
    let size = pattern::measure(pattern, Classes::Ascii)
        .map_err(|message| Refused::Pattern(format!("pattern `{}`: {message}", shown(pattern))))?;
    Bound::PatternSyntax.check(size.syntax)?;
    Bound::PatternExpanded.check(size.expanded)?;
    Bound::PatternWidth.check(size.width)?;
    Ok(size)
}

/// The beginning of a pattern, for a message.
pub(super) fn shown(pattern: &str) -> String {
    const SHOWN: usize = 60;
    match pattern.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &pattern[..end]),
        None => pattern.to_owned(),
    }
}
