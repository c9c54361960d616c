//! The orders: a JSON resource to list, create and read, kept in memory with the oldest forgotten first.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Refused, State};

/// How many orders are remembered.
pub(super) const MAX_ORDERS: usize = 1000;
/// The longest name of an item, in characters.
const MAX_ITEM: usize = 100;
/// The most of one item that can be ordered.
const MAX_QUANTITY: u32 = 1000;

/// The remembered orders, oldest first.
#[derive(Debug, Default)]
pub(super) struct Orders {
    last_id: u64,
    remembered: VecDeque<Order>,
}

#[derive(Debug, Clone, Serialize)]
struct Order {
    id: u64,
    item: String,
    quantity: u32,
}

/// What a client sends to create an order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrder {
    item: String,
    #[serde(default = "one", deserialize_with = "whole")]
    quantity: u32,
}

/// A whole number however it is written: `2`, `2.0` and `2e0` are one number in JSON Schema.
fn whole<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let exact = number.as_u64().and_then(|whole| u32::try_from(whole).ok());
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(float));
    let rounded = || float().and_then(|float| format!("{float:.0}").parse().ok());
    exact.or_else(rounded).ok_or_else(|| serde::de::Error::custom(format!("not a whole number: {number}")))
}

fn one() -> u32 {
    1
}

impl Orders {
    fn add(&mut self, NewOrder { item, quantity }: NewOrder) -> Order {
        if self.remembered.len() >= MAX_ORDERS {
            self.remembered.pop_front();
        }
        self.last_id = self.last_id.saturating_add(1);
        let order = Order { id: self.last_id, item, quantity };
        self.remembered.push_back(order.clone());
        order
    }
}

/// `GET /orders`: every remembered order, oldest first.
pub(super) async fn list(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(json!({ "orders": state.orders.lock().remembered }))
}

/// `POST /orders`: 201 with the order and its `Location`, or 422 with what is wrong with it.
pub(super) async fn create(
    Shared(state): Shared<Arc<State>>,
    body: Result<Json<NewOrder>, JsonRejection>,
) -> Result<Response, Refused> {
    let Json(order) = body.map_err(|rejection| Refused { status: rejection.status(), why: rejection.body_text() })?;
    let wrong = |why: String| Err(Refused { status: StatusCode::UNPROCESSABLE_ENTITY, why });
    let length = order.item.chars().count();
    if length == 0 || length > MAX_ITEM {
        return wrong(format!("item is 1 to {MAX_ITEM} characters long, not {length}"));
    }
    if order.quantity == 0 || order.quantity > MAX_QUANTITY {
        return wrong(format!("quantity is from 1 to {MAX_QUANTITY}, not {}", order.quantity));
    }
    let order = state.orders.lock().add(order);
    let location = [(header::LOCATION, format!("/orders/{}", order.id))];
    Ok((StatusCode::CREATED, location, Json(order)).into_response())
}

/// `GET /orders/{id}`: one order, or 404.
pub(super) async fn show(Shared(state): Shared<Arc<State>>, Path(id): Path<String>) -> Result<Response, Refused> {
    let found = id
        .parse::<u64>()
        .ok()
        .and_then(|id| state.orders.lock().remembered.iter().find(|order| order.id == id).cloned());
    found
        .map(|order| Json(order).into_response())
        .ok_or_else(|| Refused { status: StatusCode::NOT_FOUND, why: format!("no such order: {id}") })
}
