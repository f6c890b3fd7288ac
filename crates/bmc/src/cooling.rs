//! Fans and temperatures.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Attempt, BmcError, Capability, HttpBmcClient,
    wire::{Call, answer},
};

/// A fan, or whatever else the BMC can make cool more or less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CoolingDevice {
    /// Such as `system fan`.
    pub device: String,
    /// The step it runs at, 0 to [`CoolingDevice::max_speed`].
    pub speed: u32,
    /// The highest step.
    pub max_speed: u32,
}

impl CoolingDevice {
    /// A device, for test doubles.
    pub fn new(device: impl Into<String>, speed: u32, max_speed: u32) -> Self {
        Self { device: device.into(), speed, max_speed }
    }
}

/// A temperature the BMC measures: of its own chip. No firmware knows those of the modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Temperature {
    /// Such as `bmc-thermal`.
    pub sensor: String,
    /// Degrees Celsius; `None` if the sensor does not answer.
    pub celsius: Option<f64>,
}

impl Temperature {
    /// A temperature, for test doubles.
    pub fn new(sensor: impl Into<String>, celsius: Option<f64>) -> Self {
        Self { sensor: sensor.into(), celsius }
    }
}

impl HttpBmcClient {
    pub(crate) async fn read_cooling(&self) -> Result<Vec<CoolingDevice>, BmcError> {
        let call = Call::get("read the fans", "cooling");
        self.require(Capability::Cooling, &call.action()).await?;
        let reply = self.session().call(&call).await?;
        let attempt = self.session().attempt(call.action());
        parse(&answer::value(&reply, &attempt)?, &attempt)
    }

    pub(crate) async fn write_cooling(&self, device: &str, speed: u32) -> Result<(), BmcError> {
        let call = Call::set(format!("set `{}` to speed {speed}", answer::shorten(device)), "cooling")
            .with("device", device)
            .with("speed", &speed.to_string());
        self.require(Capability::Cooling, &call.action()).await?;
        self.session().command(&call).await
    }

    pub(crate) async fn read_temperatures(&self) -> Result<Vec<Temperature>, BmcError> {
        let call = Call::get("read the temperatures", "thermal");
        self.require(Capability::Thermal, &call.action()).await?;
        let reply = self.session().call(&call).await?;
        let attempt = self.session().attempt(call.action());
        parse_temperatures(&answer::value(&reply, &attempt)?, &attempt)
    }
}

/// An array, empty on a board without fans.
pub(crate) fn parse(value: &Value, attempt: &Attempt) -> Result<Vec<CoolingDevice>, BmcError> {
    let nonsense = || answer::senseless(attempt, "it is no list of fans", value);
    let speed = |value: &Value| answer::number(value).and_then(|n| u32::try_from(n).ok());
    let entries = value.as_array().ok_or_else(nonsense)?;
    let device = |entry: &Value| {
        Some(CoolingDevice {
            device: answer::word(&entry["device"])?,
            speed: speed(&entry["speed"])?,
            max_speed: speed(&entry["max_speed"])?,
        })
    };
    entries.iter().map(|entry| device(entry).ok_or_else(nonsense)).collect()
}

/// `{"sensors":[{"name":"bmc-thermal","present":true,"temperature_c":48.2,…}],…}`. Source: excavador-turing/BMC-UI, its
/// recorded answers.
pub(crate) fn parse_temperatures(value: &Value, attempt: &Attempt) -> Result<Vec<Temperature>, BmcError> {
    let nonsense = || answer::senseless(attempt, "it is no list of temperatures", value);
    let sensors = answer::single(value)["sensors"].as_array().ok_or_else(nonsense)?;
    let one = |sensor: &Value| {
        Some(Temperature {
            sensor: answer::word(&sensor["name"])?,
            celsius: sensor["temperature_c"].as_f64(),
        })
    };
    sensors.iter().map(|sensor| one(sensor).ok_or_else(nonsense)).collect()
}
