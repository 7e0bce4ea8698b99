//! What a device is to do, as plain data, and how it is compiled from a job.
//!
//! [`recording`] has the types, [`compile`] makes a program with the [`compiler`] that holds what the
//! rooms for passes and updates share ([`buffers`], stored [`products`], [`temporaries`], [`views`] of tensors),
//! [`template`] and [`uniforms`] fill in shaders, [`check`] holds a program against a device's limits.

pub(crate) mod buffers;
pub(crate) mod check;
pub(crate) mod compile;
pub(crate) mod compiler;
pub(crate) mod declarations;
pub(crate) mod products;
pub(crate) mod recording;
pub(crate) mod template;
pub(crate) mod temporaries;
pub(crate) mod tuning;
pub(crate) mod uniforms;
pub(crate) mod views;
