//! The reference engine: messages in, tokens and stage times out. It returns facts (tokens, spans, counts); it
//! never names a metric, never logs on the request path and never writes a record.
#![deny(unsafe_code)]
