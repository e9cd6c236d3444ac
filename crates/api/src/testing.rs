//! A whole API in one process for tests: the real router on a real database, and clients that sign.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, header},
};
use nova_aws::signed_query;
use nova_bus::InProcess;
use nova_config::{ApiConfig, Config as _, Surroundings};
use nova_db::{accounts, dev::TestDb, transaction};
use nova_identity::{Secret, SecretBox};
use nova_service::Ready;
use nova_types::{
    Clock as _, ProjectId, UserId,
    account::{Project, Role, User},
    clock::FixedClock,
};
use tower::ServiceExt as _;

use crate::{
    Parts,
    dispatch::{Api, Peer},
    router::router,
};

const HOST: &str = "cloud.test:8773";
const PATH: &str = "/services/Cloud/";
const SECRET: &str = "secret";

/// An API with five users: `admin`, an administrator, in project `admin`; in project `acme` its manager `joe`, who has
/// the roles `sysadmin` and `netadmin`, and `ann`, who has none; `eve`, who is in project `evil` what `joe` is in
/// `acme`; and `meg`, the manager of project `solo` without a role.
pub(crate) struct TestCloud {
    pub(crate) db: TestDb,
    pub(crate) bus: InProcess,
    pub(crate) clock: Arc<FixedClock>,
    router: Router,
}

/// Somebody who calls the API.
pub(crate) struct Client<'a> {
    cloud: &'a TestCloud,
    access_key: String,
    secret: String,
    version: &'static str,
    address: SocketAddr,
}

/// What a call came back with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl TestCloud {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with flags, such as `--region_list=east=10.0.0.1`.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let db = nova_db::dev::sqlite().await;
        let handle = nova_db::Db::clone(&db);
        Self::start_on(db, handle, flags).await
    }

    /// Starts on the database `db`, which the API reaches through `handle`.
    pub(crate) async fn start_on(db: TestDb, handle: nova_db::Db, flags: &[&str]) -> Self {
        let secrets = SecretBox::in_memory().unwrap();
        people(&db, &secrets).await;
        let args = ["nova-api", "--my_ip=192.168.0.1"].iter().chain(flags).map(Into::into);
        let config = ApiConfig::load_in(args, &Surroundings::bare()).unwrap().config;
        let (bus, clock) = (InProcess::new(), Arc::new(FixedClock::at(1_296_705_906)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let parts = Parts {
            db: handle,
            bus: Arc::new(bus.clone()),
            clock: Arc::clone(&clock) as _,
            secrets,
            config,
            listener,
            ready: Ready::default(),
        };
        let (api, _) = Api::new(parts);
        Self { db, bus, clock, router: router(Arc::new(api)) }
    }

    pub(crate) fn admin(&self) -> Client<'_> {
        self.client("admin-key:admin")
    }

    pub(crate) fn joe(&self) -> Client<'_> {
        self.client("joe-key:acme")
    }

    pub(crate) fn ann(&self) -> Client<'_> {
        self.client("ann-key:acme")
    }

    pub(crate) fn eve(&self) -> Client<'_> {
        self.client("eve-key:evil")
    }

    /// A client with any `access` or `access:project`, and the secret that all users here share.
    pub(crate) fn client(&self, access_key: &str) -> Client<'_> {
        Client {
            cloud: self,
            access_key: access_key.to_owned(),
            secret: SECRET.to_owned(),
            version: "2016-11-15",
            address: ([10, 0, 0, 9], 40_000).into(),
        }
    }

    /// Sends a request as it is, from `address`.
    pub(crate) async fn send(&self, address: SocketAddr, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(Peer(address));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, body: String::from_utf8(body.to_vec()).unwrap() }
    }
}

impl Client<'_> {
    pub(crate) fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    pub(crate) fn secret(mut self, secret: &str) -> Self {
        secret.clone_into(&mut self.secret);
        self
    }

    pub(crate) fn coming_from(mut self, address: [u8; 4]) -> Self {
        self.address = (address, 40_000).into();
        self
    }

    /// Calls `"Action Name=value Other.1=value"`: parameters are parted by blanks, a blank within one is `%20`.
    pub(crate) async fn call(&self, text: &str) -> Answer {
        self.call_at(Method::GET, PATH, text).await
    }

    /// Sends a call by another method or path: in the query string of a GET, in the form of anything else.
    pub(crate) async fn call_at(&self, method: Method, path: &str, text: &str) -> Answer {
        let query = self.sign(&method, path, text);
        let request = Request::builder().method(&method).header(header::HOST, HOST);
        let request = if method == Method::GET {
            request.uri(format!("{path}?{query}")).body(Body::empty())
        } else {
            let form = "application/x-www-form-urlencoded; charset=utf-8";
            request.uri(path).header(header::CONTENT_TYPE, form).body(Body::from(query))
        };
        self.cloud.send(self.address, request.unwrap()).await
    }

    /// The query string, or form, of that call.
    pub(crate) fn sign(&self, method: &Method, path: &str, text: &str) -> String {
        let mut words = text.split_whitespace();
        let action = words.next().unwrap_or_default();
        let [mut pairs] =
            nova_aws::decode([words.collect::<Vec<_>>().join("&").replace('+', "%2B").as_bytes()]).unwrap();
        pairs.push(("Action".to_owned(), action.to_owned()));
        pairs.push(("Version".to_owned(), self.version.to_owned()));
        let headers = [("host".to_owned(), HOST.to_owned())];
        signed_query((method.as_str(), path, &headers), pairs, (&self.access_key, &self.secret), self.cloud.clock.now())
    }
}

impl Answer {
    /// The text of the first element called `name`.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let (_, after) = self.body.split_once(&format!("<{name}>"))?;
        Some(after.split_once(&format!("</{name}>"))?.0)
    }

    /// The texts of all elements called `name`, in order.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        let close = format!("</{name}>");
        let text = |after: &'_ str| match after.strip_prefix('>') {
            Some(text) => text.find(&close).map(|end| 1..1 + end),
            None => after.starts_with("/>").then_some(0..0),
        };
        self.body.split(&format!("<{name}")).skip(1).filter_map(|after| Some(&after[text(after)?])).collect()
    }

    /// Status and code, such as `400 InvalidKeyPair.Duplicate`, or `200`.
    pub(crate) fn outcome(&self) -> String {
        format!("{} {}", self.status, self.text("Code").unwrap_or_default()).trim().to_owned()
    }

    /// The document without declaration and request id, one element a line, indented.
    pub(crate) fn pretty(&self) -> String {
        let (mut out, mut depth) = (format!("{}\n", self.status), 0);
        let body = self.body.split_once("?>\n").map_or(self.body.as_str(), |(_, body)| body);
        for line in body.replace("><", ">\n<").lines() {
            let closes = line.starts_with("</");
            depth -= usize::from(closes);
            if !line.starts_with("<requestId>") && !line.starts_with("<RequestID>") {
                out += &format!("{}{line}\n", "  ".repeat(depth));
            }
            depth += usize::from(line.starts_with('<') && !closes && !line.contains("</") && !line.ends_with("/>"));
        }
        out
    }
}

async fn people(db: &TestDb, secrets: &SecretBox) {
    for (name, is_admin) in [("admin", true), ("joe", false), ("ann", false), ("eve", false), ("meg", false)] {
        let sealed_secret = secrets.seal(name, &Secret::new(SECRET)).unwrap();
        let user = User { id: user(name), access_key: format!("{name}-key"), sealed_secret, is_admin };
        accounts::create_user(&mut db.write().await.unwrap(), &user).await.unwrap();
    }
    transaction!(db, |tx| -> accounts::AccountError {
        let projects = [
            ("admin", "admin", vec![]),
            ("acme", "joe", vec![user("ann")]),
            ("evil", "eve", vec![]),
            ("solo", "meg", vec![]),
        ];
        for (name, manager, members) in projects {
            let project = Project { id: project(name), description: String::new(), manager: user(manager) };
            accounts::create_project(tx, &project, &members).await?;
        }
        for (who, place) in [("joe", "acme"), ("eve", "evil")] {
            for role in [Role::SysAdmin, Role::NetAdmin] {
                accounts::add_role(tx, &user(who), role, None).await?;
                accounts::add_role(tx, &user(who), role, Some(&project(place))).await?;
            }
        }
        Ok(())
    })
    .unwrap();
}

/// A user's id from its text.
pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

/// A project's id from its text.
pub(crate) fn project(name: &str) -> ProjectId {
    name.parse().unwrap()
}
