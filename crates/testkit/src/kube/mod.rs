//! A generic small Kubernetes API server, with the controllers that make a cluster look alive.
//!
//! It knows no client: it has a registry of resources (the usual built-in ones and whatever CRDs add), a store with
//! versions and history, admission (defaults, validation, allocation), the four patch kinds with real field ownership,
//! watches, and content negotiation as `kubectl`, Helm and kube-rs use it. Not in it: aggregation, webhooks, protobuf,
//! quotas, exec, port-forward and logs (they are refused with a proper `Status`).

mod admit;
mod auth;
mod bootstrap;
mod convert;
mod discovery;
mod http;
mod network;
mod openapi;
mod patch;
mod rbac;
mod reactor;
mod registry;
mod schema;
mod selectors;
mod server;
mod shapes;
mod status;
mod store;
mod table;
mod value;

pub use self::{
    patch::Patch,
    registry::Gvr,
    selectors::{FieldSelector, LabelSelector},
    server::{ApiServer, ApiServerOptions},
    status::{Result as KubeResult, StatusError},
    store::{
        DeleteOptions, ListOptions, ListPage, Propagation, Snapshot, Store, WatchEvent, WatchEventKind,
        WatchOptions, Watcher, WriteOptions,
    },
};
