//! Combined `multipleOf` automata: how many states one position of a text can require.
//!
//! A `multipleOf` is an automaton with one state per remainder. Where alternatives have different divisors, the lexer
//! tracks a remainder for each, so their states multiply. Which alternatives are open together follows from the names
//! that lead to them: [`check`] walks the schema by sets of shapes, as a parser of the text would.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::bounds::{Bound, Exceeded};
use super::shape::{Fields, Kind, Shape, Shared};

/// Positional (tuple) items of an array, and the others.
type Items<'a> = (&'a [Shared], Option<&'a Shared>);

/// Checks that the number of joint remainders is within its bound. `defined` maps references to shapes.
pub(super) fn check(root: &Shared, defined: &HashMap<String, Shared>) -> Result<(), Exceeded> {
    let mut waiting = vec![vec![Rc::clone(root)]];
    let mut seen: HashSet<Vec<*const Shape>> = HashSet::new();
    let mut steps = 0;
    while let Some(shapes) = waiting.pop() {
        let open = alternatives(shapes, defined);
        steps += 1 + open.len() as u64;
        Bound::Steps.check(steps)?;
        if !seen.insert(open.iter().map(Rc::as_ptr).collect()) {
            continue;
        }
        let mut numbers = BTreeSet::new();
        let (mut objects, mut arrays): (Vec<&Fields>, Vec<Items>) = (Vec::new(), Vec::new());
        for shape in &open {
            match &shape.kind {
                Kind::Number { multiple, places } => drop(numbers.insert((*multiple, *places))),
                Kind::Array { prefix, items } => arrays.push((prefix, items.as_ref())),
                Kind::Object(fields) => objects.push(fields),
                _ => {}
            }
        }
        let states = numbers.iter().fold(1, |product: u64, (multiple, _)| product.saturating_mul(*multiple));
        Bound::Multiple.check(states)?;
        let names: BTreeSet<&str> =
            objects.iter().flat_map(|fields| fields.named.iter().map(|(name, _)| name.as_str())).collect();
        // Each name is looked up in each object, which is slow if both are many.
        steps += (names.len() * objects.len()) as u64 / 4;
        Bound::Steps.check(steps)?;
        let under = |name| objects.iter().filter_map(|fields: &&Fields| fields.find(name)).collect();
        waiting.extend(names.into_iter().map(under));
        let unnamed = |fields: &&Fields| {
            let patterns = fields.patterns.iter().map(|(_, shape)| Rc::clone(shape));
            patterns.chain(fields.others.clone()).collect::<Vec<_>>()
        };
        waiting.push(objects.iter().flat_map(unnamed).collect());
        // Items at different positions are never open together.
        let places = arrays.iter().map(|(prefix, _)| prefix.len()).max().unwrap_or(0);
        steps += (places * arrays.len()) as u64 / 4;
        Bound::Steps.check(steps)?;
        let at = |place| {
            let item = |&(prefix, rest): &Items| prefix.get(place).or(rest).map(Rc::clone);
            arrays.iter().filter_map(item).collect()
        };
        waiting.extend((0..=places).map(at));
    }
    Ok(())
}

/// The shapes behind `shapes`: alternatives and references expanded, without duplicates.
fn alternatives(shapes: Vec<Shared>, defined: &HashMap<String, Shared>) -> Vec<Shared> {
    let mut waiting = shapes;
    let mut seen = HashSet::new();
    let mut open = Vec::new();
    while let Some(shape) = waiting.pop() {
        if !seen.insert(Rc::as_ptr(&shape)) {
            continue;
        }
        match &shape.kind {
            Kind::AnyOf(options) | Kind::OneOf(options) => waiting.extend(options.iter().cloned()),
            Kind::Ref(name) => waiting.extend(defined.get(name).cloned()),
            _ => open.push(shape),
        }
    }
    open.sort_by_key(Rc::as_ptr);
    open
}
