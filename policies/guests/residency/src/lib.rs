//! The residency policy: work runs, and its results are written and sent, only where the tenant's
//! contract and every dataset allow it.
//!
//! Twin of `policies/reference/residency/residency.rego`; the shared cases hold the two equal, each
//! word of each reason included.

use placet_guest::{Answer, Dataset, Decided, Denial, Input, Obligation};
use serde::Deserialize;

placet_guest::policy!(evaluate);

/// Most datasets or parties that are named for one code: the answer stays within its bounds.
const MOST_NAMED: usize = 3;
/// Most datasets of each kind that are named where results go astray.
const MOST_STRAYS: usize = 1;
/// Most entries of a list that are told.
const MOST_LISTED: usize = 12;
/// Longest name of a place that is told in full: a code has two characters.
const LONGEST_NAME: usize = 8;
/// Codes in each param of the obligation, which has at most 256 bytes.
const CODES_PER_PARAM: usize = 64;

/// ISO 3166-1 alpha-2, as a text in which each code stands between bars.
const COUNTRIES: &str = "\
|AD|AE|AF|AG|AI|AL|AM|AO|AQ|AR|AS|AT|AU|AW|AX|AZ|BA|BB|BD|BE|BF|BG|BH|BI|BJ|BL|BM|\
BN|BO|BQ|BR|BS|BT|BV|BW|BY|BZ|CA|CC|CD|CF|CG|CH|CI|CK|CL|CM|CN|CO|CR|CU|CV|CW|CX|\
CY|CZ|DE|DJ|DK|DM|DO|DZ|EC|EE|EG|EH|ER|ES|ET|FI|FJ|FK|FM|FO|FR|GA|GB|GD|GE|GF|GG|\
GH|GI|GL|GM|GN|GP|GQ|GR|GS|GT|GU|GW|GY|HK|HM|HN|HR|HT|HU|ID|IE|IL|IM|IN|IO|IQ|IR|\
IS|IT|JE|JM|JO|JP|KE|KG|KH|KI|KM|KN|KP|KR|KW|KY|KZ|LA|LB|LC|LI|LK|LR|LS|LT|LU|LV|\
LY|MA|MC|MD|ME|MF|MG|MH|MK|ML|MM|MN|MO|MP|MQ|MR|MS|MT|MU|MV|MW|MX|MY|MZ|NA|NC|NE|\
NF|NG|NI|NL|NO|NP|NR|NU|NZ|OM|PA|PE|PF|PG|PH|PK|PL|PM|PN|PR|PS|PT|PW|PY|QA|RE|RO|\
RS|RU|RW|SA|SB|SC|SD|SE|SG|SH|SI|SJ|SK|SL|SM|SN|SO|SR|SS|ST|SV|SX|SY|SZ|TC|TD|TF|\
TG|TH|TJ|TK|TL|TM|TN|TO|TR|TT|TV|TW|TZ|UA|UG|UM|US|UY|UZ|VA|VC|VE|VG|VI|VN|VU|WF|\
WS|YE|YT|ZA|ZM|ZW|";

/// The params, as the schema beside the policy in Rego describes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    adequate: Vec<String>,
    #[serde(default)]
    more_jurisdictions: Vec<String>,
    #[serde(default = "yes")]
    oblige_egress: bool,
}

fn yes() -> bool {
    true
}

/// Places, sorted, each once: looked up by halves, because lists may be long.
#[derive(Clone)]
struct Places<'a>(Vec<&'a str>);

impl<'a> Places<'a> {
    fn of(names: &'a [String]) -> Self {
        let mut places: Vec<&str> = texts(names).collect();
        places.sort_unstable();
        places.dedup();
        Self(places)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, place: &str) -> bool {
        self.0.binary_search(&place).is_ok()
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|place| other.has(place))
    }

    fn told(&self) -> String {
        listed(self.0.iter().copied())
    }
}

/// A dataset, with its jurisdictions as a set.
struct Held<'a> {
    dataset: &'a Dataset,
    places: Places<'a>,
}

/// Who restricts where the work may be.
struct Party<'a> {
    name: String,
    places: Places<'a>,
}

/// A way of results out of the work.
#[derive(Clone, Copy)]
struct Way<'a> {
    /// The code of a denial because of it.
    code: &'static str,
    /// The field of the subject that says where.
    field: &'static str,
    asked: &'a [String],
    /// What is done with results, and where that is, in words.
    done: &'static str,
    at: &'static str,
}

/// What is asked, and what follows from it.
struct Question<'a> {
    /// Name of the subject's field: `lease` or `job`.
    kind: &'static str,
    tenant: &'a str,
    /// The tenant's jurisdictions; empty if its contract names none.
    allowed: &'a [String],
    cluster: &'a str,
    /// Where the cluster stands.
    place: &'a str,
    datasets: Vec<Held<'a>>,
    /// Where results go.
    ways: [Way<'a>; 2],
    params: &'a Params,
    adequate: Places<'a>,
    parties: Vec<Party<'a>>,
    /// Jurisdictions that satisfy every party; empty if there is none.
    places: Places<'a>,
}

fn evaluate(input: Input, params: &str) -> Answer {
    let params: Params = match serde_json::from_str(params) {
        Ok(params) => params,
        Err(_) => return Answer::failed("params are not those of the residency policy"),
    };
    let Some(question) = Question::read(&input, &params) else {
        return Answer::failed("the input has not exactly one of lease and job");
    };
    let mut decided = Decided::permit();
    question.compute(&mut decided);
    for way in question.ways {
        question.results(way, &mut decided);
    }
    question.conflicts(&mut decided);
    question.personal(&mut decided);
    question.unknown(&mut decided);
    question.egress(&mut decided);
    decided.into()
}

impl<'a> Question<'a> {
    /// All that the policy reads of the input.
    fn read(input: &'a Input, params: &'a Params) -> Option<Self> {
        let (kind, workload) = input.subject()?;
        let held = |dataset: &'a Dataset| {
            let places = Places::of(&dataset.jurisdictions);
            Held { dataset, places }
        };
        let mut question = Self {
            kind,
            tenant: &input.tenant.id,
            allowed: &input.tenant.allowed_jurisdictions,
            cluster: &input.cluster.id,
            place: &input.cluster.jurisdiction,
            datasets: input.datasets.iter().map(held).collect(),
            ways: [
                Way {
                    code: "RESIDENCY_CHECKPOINT",
                    field: "checkpoint_jurisdictions",
                    asked: &workload.checkpoint_jurisdictions,
                    done: "written",
                    at: "where results go",
                },
                Way {
                    code: "RESIDENCY_EGRESS",
                    field: "egress_jurisdictions",
                    asked: &workload.egress_jurisdictions,
                    done: "sent",
                    at: "where results are sent",
                },
            ],
            params,
            adequate: Places::of(&params.adequate),
            parties: Vec::new(),
            places: Places(Vec::new()),
        };
        question.parties = question.restricting();
        question.places = shared(&question.parties);
        Some(question)
    }

    /// Datasets with a list.
    fn listing(&self) -> impl Iterator<Item = &Held<'a>> {
        self.datasets.iter().filter(|held| !held.places.is_empty())
    }

    fn personal_data(&self) -> impl Iterator<Item = &Held<'a>> {
        self.datasets.iter().filter(|held| held.dataset.personal)
    }

    /// The tenant, datasets with a list, and personal data without one.
    fn restricting(&self) -> Vec<Party<'a>> {
        let mut parties = Vec::new();
        if !self.allowed.is_empty() {
            let name = format!("tenant {}", self.tenant);
            parties.push(Party { name, places: Places::of(self.allowed) });
        }
        for Held { dataset, places } in self.listing() {
            let name = format!("dataset {}", dataset.id);
            parties.push(Party { name, places: places.clone() });
        }
        for Held { dataset, .. } in self.personal_data().filter(|held| held.places.is_empty()) {
            let name = format!("personal dataset {}", dataset.id);
            parties.push(Party { name, places: self.adequate.clone() });
        }
        parties
    }
}

/// The places that all of them have.
fn shared<'a>(parties: &[Party<'a>]) -> Places<'a> {
    let mut sets = parties.iter().map(|party| &party.places);
    let Some(first) = sets.next() else { return Places(Vec::new()) };
    let mut shared = first.clone();
    for places in sets {
        shared.0.retain(|place| places.has(place));
    }
    shared
}

/// A list as a person reads it: sorted, and cut where it is long.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    let told: Vec<String> = names.iter().take(MOST_LISTED).map(|name| short(name)).collect();
    let more = names.len().saturating_sub(MOST_LISTED);
    let told = told.join(", ");
    if more > 0 { format!("{told} and {more} more") } else { told }
}

/// A code as it is; what is none may be long.
fn short(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    let begun: String = name.chars().take(LONGEST_NAME).collect();
    format!("{begun}...")
}

fn texts(names: &[String]) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str)
}

/// Where results would go and `may` not.
fn strays<'a>(way: Way<'a>, may: impl Fn(&str) -> bool) -> Vec<&'a str> {
    texts(way.asked).filter(|place| !may(place)).collect()
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other == name)
}

impl Question<'_> {
    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.kind)
    }

    /// Adds where it could go, if there is a place.
    fn hinted(&self, denial: Denial, how: &str) -> Denial {
        if self.places.is_empty() {
            return denial;
        }
        denial.hint(format!("{how} {}", self.places.told()))
    }

    fn compute(&self, decided: &mut Decided) {
        let Self { allowed, cluster, place, tenant, .. } = *self;
        if !allowed.is_empty() && !has(allowed, place) {
            let message = format!(
                "cluster {cluster} is in {place}, but work of tenant {tenant} may only run in {}",
                listed(texts(allowed)),
            );
            let denial = Denial::new("RESIDENCY_TENANT", message).field(self.field("cluster_id"));
            decided.deny(self.hinted(denial, "it could run in"));
        }
        let misplaced = self.listing().filter(|held| !held.places.has(place));
        for Held { dataset, .. } in misplaced.take(MOST_NAMED) {
            let message = format!(
                "cluster {cluster} is in {place}, but dataset {} may only be processed in {}",
                dataset.id,
                listed(texts(&dataset.jurisdictions)),
            );
            let denial = Denial::new("RESIDENCY_DATA", message).field(self.field("cluster_id"));
            decided.deny(self.hinted(denial, "it could run in"));
        }
    }

    /// A denial for where results go, with where they could.
    fn astray(&self, code: &str, message: String, way: Way<'_>) -> Denial {
        let denial = Denial::new(code, message).field(self.field(way.field));
        self.hinted(denial, &format!("it could be {} to", way.done))
    }

    fn results(&self, way: Way<'_>, decided: &mut Decided) {
        let Self { allowed, tenant, .. } = *self;
        let done = way.done;
        let strays = strays(way, |place| has(allowed, place));
        if !allowed.is_empty() && !strays.is_empty() {
            let (strays, only) = (listed(strays), listed(texts(allowed)));
            let message =
                format!("results of tenant {tenant} may not be {done} to {strays}, only to {only}");
            decided.deny(self.astray(way.code, message, way));
        }
        for (dataset, strays) in self.straying(way, self.listing(), |_, _| false) {
            let message = format!(
                "results from dataset {} may not be {done} to {}, only to {}",
                dataset.id,
                listed(strays),
                listed(texts(&dataset.jurisdictions)),
            );
            decided.deny(self.astray(way.code, message, way));
        }
        let adequate = |_: &Held<'_>, place: &str| self.adequate.has(place);
        for (dataset, strays) in self.straying(way, self.personal_data(), adequate) {
            let (strays, at) = (listed(strays), way.at);
            let message = format!(
                "dataset {} is personal, and protection in {strays}, {at}, is not adequate",
                dataset.id,
            );
            decided.deny(self.astray("RESIDENCY_PERSONAL", message, way));
        }
    }

    /// The first datasets from which results go where neither they nor something else allow it.
    fn straying<'b, 'c>(
        &'b self,
        way: Way<'c>,
        held: impl Iterator<Item = &'b Held<'b>>,
        else_may: impl Fn(&Held<'_>, &str) -> bool,
    ) -> Vec<(&'b Dataset, Vec<&'c str>)> {
        let strays = held.map(|held| {
            let may = |place: &str| held.places.has(place) || else_may(held, place);
            (held.dataset, strays(way, may))
        });
        strays.filter(|(_, strays)| !strays.is_empty()).take(MOST_STRAYS).collect()
    }

    fn conflicts(&self, decided: &mut Decided) {
        if !self.places.is_empty() {
            return;
        }
        let only = |party: &Party<'_>| format!("{} (only {})", party.name, party.places.told());
        let mut deny = |who: String, hint: &str| {
            let message = format!("{who} may nowhere be processed together");
            let denial = Denial::new("RESIDENCY_CONFLICT", message);
            decided.deny(denial.field(self.field("dataset_ids")).hint(hint));
        };
        let after = |at: usize| self.parties.iter().skip(at + 1);
        let pairs = self.parties.iter().enumerate();
        let pairs = pairs.flat_map(|(at, one)| after(at).map(move |other| (one, other)));
        let apart: Vec<_> = pairs
            .filter(|(one, other)| !one.places.meets(&other.places))
            .take(MOST_NAMED)
            .collect();
        for (one, other) in &apart {
            deny(format!("{} and {}", only(one), only(other)), "ask for each of them apart");
        }
        if self.parties.len() > 2 && apart.is_empty() {
            let mut named: Vec<String> = self.parties.iter().take(MOST_NAMED).map(only).collect();
            let more = self.parties.len().saturating_sub(MOST_NAMED);
            if more > 0 {
                named.push(format!("{more} more"));
            }
            deny(named.join(", "), "ask for fewer of them together");
        }
    }

    fn personal(&self, decided: &mut Decided) {
        let Self { cluster, place, .. } = *self;
        let protected =
            |held: &Held<'_>, place: &str| self.adequate.has(place) || held.places.has(place);
        let misplaced = self.personal_data().filter(|held| !protected(held, place));
        for Held { dataset, .. } in misplaced.take(MOST_NAMED) {
            let message = format!(
                "dataset {} is personal, and protection in {place}, where cluster {cluster} \
                 stands, is not adequate",
                dataset.id,
            );
            let denial = Denial::new("RESIDENCY_PERSONAL", message).field(self.field("cluster_id"));
            decided.deny(self.hinted(denial, "it could run in"));
        }
    }

    fn known(&self, place: &str) -> bool {
        let is_country = place.len() == 2 && COUNTRIES.contains(&format!("|{place}|"));
        is_country || has(&self.params.more_jurisdictions, place)
    }

    fn unknown(&self, decided: &mut Decided) {
        for way in self.ways {
            let unknown = strays(way, |place| self.known(place));
            if unknown.is_empty() {
                continue;
            }
            let (places, done) = (listed(unknown), way.done);
            let message =
                format!("there is no jurisdiction {places}, where results are to be {done}");
            decided.deny(
                Denial::new("JURISDICTION_UNKNOWN", message)
                    .field(self.field(way.field))
                    .hint("write ISO 3166-1 alpha-2 codes, such as DE"),
            );
        }
        if !self.known(self.place) {
            let (place, cluster) = (short(self.place), self.cluster);
            let message =
                format!("there is no jurisdiction {place}, where cluster {cluster} stands");
            let hint =
                "have the cluster's jurisdiction in the facts mended, or ask in another cluster";
            decided.deny(
                Denial::new("JURISDICTION_UNKNOWN", message)
                    .field(self.field("cluster_id"))
                    .hint(hint),
            );
        }
    }

    fn egress(&self, decided: &mut Decided) {
        if !self.params.oblige_egress || self.places.is_empty() {
            return;
        }
        let mut obligation = Obligation::new("residency.egress");
        for (at, codes) in self.places.0.chunks(CODES_PER_PARAM).enumerate() {
            let name = if at == 0 { "allow".to_owned() } else { format!("allow.{}", at + 1) };
            obligation = obligation.param(name, codes.join(","));
        }
        decided.oblige(obligation);
    }
}
