//! Answers as the canonical ABI lays them out in a guest's memory, mostly of the contract's types.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::damage::damaged;
use crate::guest::MEMORY;

/// The memory of a guest, from `MEMORY` on.
#[derive(Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
}

/// Address and length, as strings and lists have them.
type Span = (u32, u32);

impl Arena {
    /// Puts bytes where the alignment allows, and tells where.
    fn put(&mut self, bytes: &[u8]) -> u32 {
        while !self.bytes.len().is_multiple_of(8) {
            self.bytes.push(0);
        }
        let at = u32::try_from(self.bytes.len()).expect("an answer is small");
        self.bytes.extend_from_slice(bytes);
        MEMORY + at
    }

    fn text(&mut self, text: &str) -> Span {
        let length = u32::try_from(text.len()).expect("a text is small");
        (self.put(text.as_bytes()), length)
    }

    /// A list of records that were laid out already.
    fn list(&mut self, records: &[Vec<u8>]) -> Span {
        let length = u32::try_from(records.len()).expect("a list is small");
        (self.put(&records.concat()), length)
    }
}

fn span((at, length): Span) -> Vec<u8> {
    [at.to_le_bytes(), length.to_le_bytes()].concat()
}

/// One byte that says whether there is something, and what is there, after that byte's padding.
fn option(present: Option<Vec<u8>>, align: usize, size: usize) -> Vec<u8> {
    let mut bytes = vec![u8::from(present.is_some())];
    bytes.resize(align, 0);
    bytes.extend(present.unwrap_or_else(|| vec![0; size]));
    bytes
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        10 => "[ -~]{1,20}",
        2 => select(vec!["", "\u{0}", "a\nb", "\u{1b}[2J", "\u{202e}gpj", "\u{fffd}"])
            .prop_map(str::to_owned),
        1 => "[a-z]{255,258}",
        1 => "[a-z]{1023,1026}",
    ]
}

fn code() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[A-Z][A-Z0-9_]{0,8}", 1 => text(), 1 => "[A-Z]{63,66}"]
}

fn account() -> impl Strategy<Value = String> {
    prop_oneof![8 => "tenant/[a-c]/(gpu|seats)", 1 => text(), 1 => "([a-z]{1,9}/){0,20}[a-z]?"]
}

fn amount() -> impl Strategy<Value = u64> {
    let edges = vec![0, 1, (1 << 53) - 1, 1 << 53, u64::MAX];
    prop_oneof![4 => 1_u64..1_000, 1 => select(edges)]
}

type Denial = (String, String, Option<String>, Option<String>, bool);
type Claim = (String, u64, Option<u64>, Option<String>);
type Rule = (Vec<u8>, u32, u32, u32);

/// What an answer decides.
#[derive(Debug, Clone)]
struct Decided {
    denials: Vec<Denial>,
    warnings: Vec<(String, String)>,
    obligations: Vec<(String, Vec<(String, String)>)>,
    claims: Vec<Claim>,
    rule: Option<Rule>,
}

fn decided() -> impl Strategy<Value = Decided> {
    let some = || prop_oneof![12 => 0_usize..3, 1 => 31_usize..35];
    let denial = || (code(), text(), of(text()), of(text()), any::<bool>());
    let denials = some().prop_flat_map(move |n| vec(denial(), n));
    let warnings = some().prop_flat_map(|n| vec((code(), text()), n));
    let name = || prop_oneof![4 => "[a-z.]{1,9}", 1 => text()];
    let obligation = move || (name(), vec((name(), text()), 0..3));
    let obligations = some().prop_flat_map(move |n| vec(obligation(), n));
    let claim = || (account(), amount(), of(amount()), of(code()));
    let claims = some().prop_flat_map(move |n| vec(claim(), n));
    let seconds = || prop_oneof![4 => 0_u32..10_000, 1 => any::<u32>()];
    let victims = prop_oneof![4 => 1_u32..9, 1 => select(vec![0, 1_000, 1_001, u32::MAX])];
    let rule = of((vec(0_u8..3, 0..4), seconds(), seconds(), victims));
    (denials, warnings, obligations, claims, rule).prop_map(
        |(denials, warnings, obligations, claims, rule)| Decided {
            denials,
            warnings,
            obligations,
            claims,
            rule,
        },
    )
}

impl Decided {
    /// The record, after its parts were put into the arena.
    fn lay_out(&self, arena: &mut Arena) -> Vec<u8> {
        let mut record = vec![0; 4];
        let denials: Vec<_> = self.denials.iter().map(|one| lay_out_denial(one, arena)).collect();
        record.extend(span(arena.list(&denials)));
        let warnings: Vec<_> = self.warnings.iter().map(|one| texts(one, arena)).collect();
        record.extend(span(arena.list(&warnings)));
        let mut obligations = Vec::new();
        for (id, params) in &self.obligations {
            let id = span(arena.text(id));
            let params: Vec<_> = params.iter().map(|one| texts(one, arena)).collect();
            obligations.push([id, span(arena.list(&params))].concat());
        }
        record.extend(span(arena.list(&obligations)));
        let claims: Vec<_> = self.claims.iter().map(|one| lay_out_claim(one, arena)).collect();
        record.extend(span(arena.list(&claims)));
        let rule = self.rule.as_ref().map(|(classes, grace, runtime, victims)| {
            let length = u32::try_from(classes.len()).expect("a list is small");
            let numbers = [grace, runtime, victims].map(|number| number.to_le_bytes()).concat();
            [span((arena.put(classes), length)), numbers].concat()
        });
        record.extend(option(rule, 4, 20));
        record
    }
}

fn texts((one, other): &(String, String), arena: &mut Arena) -> Vec<u8> {
    [span(arena.text(one)), span(arena.text(other))].concat()
}

fn lay_out_denial(denial: &Denial, arena: &mut Arena) -> Vec<u8> {
    let (code, message, field, hint, retry) = denial;
    let mut record = [span(arena.text(code)), span(arena.text(message))].concat();
    for text in [field, hint] {
        record.extend(option(text.as_ref().map(|text| span(arena.text(text))), 4, 8));
    }
    record.extend([u8::from(*retry), 0, 0, 0]);
    record
}

fn lay_out_claim(claim: &Claim, arena: &mut Arena) -> Vec<u8> {
    let (account, amount, limit, code) = claim;
    let mut record = span(arena.text(account));
    record.extend(amount.to_le_bytes());
    record.extend(option(limit.map(|limit| limit.to_le_bytes().to_vec()), 8, 8));
    record.extend(option(code.as_ref().map(|code| span(arena.text(code))), 4, 8));
    // The record's size is a multiple of its alignment, 8.
    record.extend([0; 4]);
    record
}

/// The address of the answer, then the memory from `MEMORY` on.
fn memory(arena: Arena, answer: u32) -> Vec<u8> {
    [answer.to_le_bytes().to_vec(), arena.bytes].concat()
}

/// Answers of all kinds, with wounds in some.
pub fn answer() -> impl Strategy<Value = Vec<u8>> {
    let decides = decided().prop_map(|decided| {
        let mut arena = Arena::default();
        let record = decided.lay_out(&mut arena);
        let answer = arena.put(&record);
        memory(arena, answer)
    });
    let failed = text().prop_map(|why| {
        let mut arena = Arena::default();
        let why = span(arena.text(&why));
        let answer = arena.put(&[vec![2, 0, 0, 0], why].concat());
        memory(arena, answer)
    });
    let quiet = (0_u8..5).prop_map(|kind| {
        let mut arena = Arena::default();
        let answer = arena.put(&[kind, 0, 0, 0]);
        memory(arena, answer)
    });
    let anywhere = (any::<u32>(), vec(any::<u8>(), 0..200))
        .prop_map(|(at, bytes)| memory(Arena { bytes }, at % 600_000));
    let good = prop_oneof![8 => decides, 1 => failed, 1 => quiet].boxed();
    prop_oneof![3 => good.clone(), 3 => damaged(good), 1 => anywhere]
}
