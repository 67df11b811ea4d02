//! `/api/v1/top`: which values of a bucketed tag send most, as JSON.
//!
//! In: `tag` of the query. Out: the list of that tag, or without one the totals of every tag; 404 for a tag that is not
//! bucketed.
//! Not here: who may ask (`http`), how the values are found (`insight`).

use std::fmt;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::body::Reply;
use super::{State, json_page, parameter};
use crate::insight::Insight;
use crate::insight::heavy::Top;

pub(super) const PATH: &str = "/api/v1/top";

/// Gives the insight of the configuration in force.
pub struct InsightSource(pub(super) Box<dyn Fn() -> Arc<Insight> + Send + Sync>);

impl fmt::Debug for InsightSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsightSource").finish_non_exhaustive()
    }
}

pub(super) fn answer(state: &State, request: &Request<Incoming>) -> Response<Reply> {
    let found = state.insight.as_ref().map(|source| (source.0)());
    let (status, value) = match (found, parameter(request, "tag")) {
        (Some(insight), None) => {
            (StatusCode::OK, json!({ "tags": insight.tops().iter().map(totals).collect::<Vec<_>>() }))
        }
        (Some(insight), Some(tag)) => match insight.top(&tag) {
            Some(top) => (StatusCode::OK, list(&top)),
            None => (StatusCode::NOT_FOUND, unknown(&insight, &tag)),
        },
        (None, _) => (StatusCode::NOT_FOUND, json!({ "error": "nothing is followed" })),
    };
    json_page(status, &value, request)
}

/// What is known of a tag but for its values.
fn totals(top: &Top) -> Value {
    json!({ "tag": top.tag, "observed": top.observed, "sampled": top.sampled, "error_bound": top.error_bound })
}

fn list(top: &Top) -> Value {
    let mut answer = totals(top);
    let value = |heavy: &crate::insight::heavy::Heavy| json!({ "value": heavy.value, "count": heavy.count, "error": heavy.error });
    answer["values"] = top.values.iter().map(value).collect();
    answer
}

fn unknown(insight: &Insight, tag: &str) -> Value {
    let tops = insight.tops();
    let tags: Vec<&str> = tops.iter().map(|top| top.tag.as_str()).collect();
    let known = match tags.is_empty() {
        true => "no tag is bucketed, or heavy_hitters.capacity is 0".to_owned(),
        false => format!("there are: {}", tags.join(", ")),
    };
    json!({ "error": format!("no list for the tag {tag:?}; {known}") })
}
