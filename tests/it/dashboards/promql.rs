//! What a query is made of, as the `PromQL` grammar has it.

use std::convert::Infallible;
use std::time::Duration;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, AggregateExpr, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// Stands for `$__rate_interval`; a time that nobody writes by hand.
const RATE_INTERVAL: Duration = Duration::from_secs(8_869_787);

/// The names of the functions whose range must be `$__rate_interval`.
const RATES: [&str; 2] = ["rate", "irate"];

/// One place where a query names series.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    /// The metric.
    pub metric: String,
    /// What its labels must be.
    pub matchers: Vec<Matcher>,
    /// The function around it and whether its range is `$__rate_interval`, where it has a range.
    pub within: Option<(&'static str, bool)>,
}

impl Selector {
    fn new(selector: &VectorSelector, within: Option<(&'static str, bool)>) -> Self {
        let metric = selector.name.clone().unwrap_or_default();
        Self { metric, matchers: selector.matchers.matchers.clone(), within }
    }

    /// Whether it demands `label=~"$label"`.
    pub(super) fn follows_variable(&self, label: &str) -> bool {
        let is = |it: &Matcher| it.name == label && matches!(it.op, MatchOp::Re(_)) && it.value == format!("${label}");
        self.matchers.iter().any(is)
    }

    /// Whether it is of a rate over something else than `$__rate_interval`.
    pub(super) fn is_rate_of_other_interval(&self) -> bool {
        self.within.is_some_and(|(function, is_rate_interval)| RATES.contains(&function) && !is_rate_interval)
    }

    /// Whether something is made of how it grows.
    pub(super) fn is_growth(&self) -> bool {
        self.within.is_some_and(|(function, _)| RATES.contains(&function) || function == "increase")
    }
}

/// A query taken apart.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Where it names series.
    pub selectors: Vec<Selector>,
    /// Labels that an aggregation keeps, and the metrics it aggregates.
    pub kept: Vec<(String, Vec<String>)>,
}

/// Takes a query apart; what is wrong with it when it is none.
pub(super) fn parts(query: &str) -> Result<Parts, String> {
    let interval = format!("{}s", RATE_INTERVAL.as_secs());
    let query = query.replace("$__rate_interval", &interval).replace("$__range", "1h").replace("$top", "10");
    let tree = parser::parse(&query)?;
    let mut parts = Parts::default();
    match walk_expr(&mut parts, &tree) {
        Ok(_) => Ok(parts),
        Err(never) => match never {},
    }
}

impl ExprVisitor for Parts {
    type Error = Infallible;

    fn pre_visit(&mut self, node: &Expr) -> Result<bool, Infallible> {
        match node {
            Expr::Call(call) => {
                for argument in &call.args.args {
                    if let Expr::MatrixSelector(matrix) = &**argument {
                        let within = (call.func.name, matrix.range == RATE_INTERVAL);
                        self.selectors.push(Selector::new(&matrix.vs, Some(within)));
                    }
                }
            }
            Expr::VectorSelector(selector) => self.selectors.push(Selector::new(selector, None)),
            Expr::Aggregate(AggregateExpr { expr, modifier: Some(LabelModifier::Include(labels)), .. }) => {
                let mut inside = Self::default();
                walk_expr(&mut inside, expr)?;
                let metrics: Vec<String> = inside.selectors.into_iter().map(|selector| selector.metric).collect();
                self.kept.extend(labels.labels.iter().map(|label| (label.clone(), metrics.clone())));
            }
            _ => {}
        }
        Ok(true)
    }
}
