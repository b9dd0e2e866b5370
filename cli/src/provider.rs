//! Which naming servers to ask.

use std::path::Path;
use std::time::Duration;

use daymark_client::{InvalidProviders, Naming, NamingConfig, Providers};

use crate::args::Asking;
use crate::failure::Failure;

/// Where a naming server is when nobody says.
const DEFAULT: &str = "127.0.0.1:9736";
/// Read where it exists, as JNDI programs do.
const JNDI_PROPERTIES: &str = "jndi.properties";

/// A client of the naming servers these arguments name.
///
/// # Errors
/// A usage failure when the list is empty or cannot be read.
pub(crate) fn naming(asking: &Asking) -> Result<Naming, Failure> {
    let providers = providers(asking.provider.as_deref(), asking.jndi_properties.as_deref())?;
    Ok(Naming::new(providers, config(asking.timeout)))
}

/// The usual settings with this patience.
pub(crate) fn config(total_timeout: Duration) -> NamingConfig {
    NamingConfig {
        total_timeout,
        ..NamingConfig::default()
    }
}

/// The provider list: given, or in the file named, or in the environment, or in `./jndi.properties`, or this
/// machine's port 9736. The first of these that exists decides, also when it is wrong.
///
/// # Errors
/// A usage failure when the list is empty or cannot be read.
pub(crate) fn providers(given: Option<&str>, properties: Option<&Path>) -> Result<Providers, Failure> {
    if let Some(list) = given {
        return list.parse().map_err(|error| invalid("--provider", &error));
    }
    if let Some(file) = properties {
        let found = Providers::from_jndi_properties(file).map_err(|error| invalid(&shown(file), &error))?;
        return found.ok_or_else(|| {
            Failure::usage(
                "InvalidProviders",
                format!(
                    "{}: there is no such file, or no java.naming.provider.url in it",
                    file.display()
                ),
            )
            .hint("java.naming.provider.url=kkam:9736,kkm-PC:9736")
        });
    }
    if let Some(found) = Providers::from_env().map_err(|error| invalid("DAYMARK_PROVIDER_URL", &error))? {
        return Ok(found);
    }
    let file = Path::new(JNDI_PROPERTIES);
    if let Some(found) =
        Providers::from_jndi_properties(file).map_err(|error| invalid(&shown(file), &error))?
    {
        return Ok(found);
    }
    DEFAULT.parse().map_err(|error| invalid("the default", &error))
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

fn invalid(source: &str, error: &InvalidProviders) -> Failure {
    Failure::usage("InvalidProviders", format!("{source}: {error}"))
        .hint("a provider list is HOST:PORT,HOST:PORT, for example kkam:9736,kkm-PC:9736")
}
