//! Java programs: their dependencies fetched once with Maven, compiled with `javac`, run with plain `java`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::provision::{once, run, target_directory, text_of};
use crate::tools::{skipped, tool};

/// The plugin that copies the dependencies of a project.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// A compiled project.
#[derive(Clone, Debug)]
pub struct Java {
    java: PathBuf,
    classpath: String,
}

impl Java {
    /// The Maven project in `directory`, with `pom.xml` and `src/main/java`, under a name no other project
    /// has; `None` after saying that the test is skipped.
    ///
    /// # Panics
    /// When it cannot be had and `CI=true`, or does not compile.
    #[must_use]
    pub fn project(name: &str, directory: &Path) -> Option<Self> {
        let (java, javac, maven) = (tool("java")?, tool("javac")?, tool("mvn")?);
        let pom = directory.join("pom.xml");
        let libraries = match fetch(name, &maven, &pom) {
            Ok(libraries) => libraries,
            Err(why) => {
                skipped(&format!("the dependencies of {name} cannot be fetched: {why}"));
                return None;
            }
        };
        let classes = compile(name, &javac, directory, &libraries)
            .unwrap_or_else(|why| panic!("{} does not compile: {why}", directory.display()));
        let resources = directory.join("src/main/resources");
        let classpath = format!(
            "{}:{}:{}/*",
            classes.display(),
            resources.display(),
            libraries.display()
        );
        Some(Self { java, classpath })
    }

    /// A command that runs the `main` of this class.
    #[must_use]
    pub fn command(&self, class: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.java);
        command.args(self.arguments(class, arguments));
        command
    }

    /// Where `java` is.
    #[must_use]
    pub fn executable(&self) -> &Path {
        &self.java
    }

    /// What to give it to run the `main` of this class.
    #[must_use]
    pub fn arguments(&self, class: &str, arguments: &[&str]) -> Vec<String> {
        let own = ["-XX:TieredStopAtLevel=1", "-cp", &self.classpath, class];
        own.iter()
            .chain(arguments)
            .map(|part| (*part).to_owned())
            .collect()
    }
}

/// Everything the project depends on, in one directory.
fn fetch(name: &str, maven: &Path, pom: &Path) -> Result<PathBuf, String> {
    let repository = target_directory()?.join("test-maven");
    let key = format!("{COPY}\n{}", text_of(pom)?);
    let directory = once(&format!("{name}-libraries"), &key, |directory| {
        let mut command = Command::new(maven);
        command
            .args(["-B", "-q", "-ntp", COPY, "-DincludeScope=runtime"])
            .arg("-f")
            .arg(pom)
            .arg(format!("-Dmaven.repo.local={}", repository.display()))
            .arg(format!("-DoutputDirectory={}", directory.join("lib").display()));
        // Maven says what went wrong on its standard output: the log file keeps it.
        let log = directory.with_extension("log");
        command.arg("-l").arg(&log);
        run(&mut command).map_err(|why| format!("{why}: {}", text_of(&log).unwrap_or_default()))
    })?;
    Ok(directory.join("lib"))
}

fn compile(name: &str, javac: &Path, directory: &Path, libraries: &Path) -> Result<PathBuf, String> {
    let sources = sources(&directory.join("src/main/java"))?;
    let mut key = text_of(&directory.join("pom.xml"))?;
    for source in &sources {
        key.push_str(&text_of(source)?);
    }
    once(&format!("{name}-classes"), &key, |classes| {
        let mut command = Command::new(javac);
        command
            .args(["--release", "17", "-encoding", "UTF-8", "-Xlint:all", "-Werror"])
            .arg("-cp")
            .arg(format!("{}/*", libraries.display()))
            .arg("-d")
            .arg(classes)
            .args(&sources);
        run(&mut command)
    })
}

fn sources(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let entries =
        std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "java") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
