//! The doors' paths for the API's document. What bodies hold is said by TensorFlow Serving and by the Open
//! Inference Protocol; paths are read by [`muster_shared::door`].

use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::{
    ObjectBuilder, PathItem, Paths, PathsBuilder, Required, ResponseBuilder, ResponsesBuilder, Type,
};

use HttpMethod::{Get, Post};

const TFS: &str = "TensorFlow Serving";
const OIP: &str = "Open Inference Protocol";

/// Of a model, with the newest version and with one by number.
const OF_MODEL: [(&str, HttpMethod, &str, &str, &str); 10] = [
    (TFS, Get, "/v1/models/{deployment}", "", "How the versions fare."),
    (TFS, Get, "/v1/models/{deployment}", "/metadata", "What the model takes and gives."),
    (TFS, Post, "/v1/models/{deployment}", ":predict", "Runs the model on rows or columns."),
    (TFS, Post, "/v1/models/{deployment}", ":classify", "Runs the model on examples: classes and scores."),
    (TFS, Post, "/v1/models/{deployment}", ":regress", "Runs the model on examples: a number for each."),
    (OIP, Get, "/v2/models/{deployment}", "", "What the model takes and gives."),
    (OIP, Get, "/v2/models/{deployment}", "/ready", "Whether the model answers."),
    (OIP, Get, "/v2/models/{deployment}", "/config", "The model, as Triton's configuration files tell it."),
    (OIP, Get, "/v2/models/{deployment}", "/stats", "What the device that answers has counted."),
    (OIP, Post, "/v2/models/{deployment}", "/infer", "Runs the model on tensors, as JSON or binary."),
];

const OF_GATEWAY: [(&str, HttpMethod, &str, &str); 4] = [
    (OIP, Get, "/v2", "What the gateway is, and which extensions it knows."),
    (OIP, Get, "/v2/health/live", "Whether the gateway runs."),
    (OIP, Get, "/v2/health/ready", "Whether the gateway answers."),
    (OIP, Post, "/v2/repository/index", "Which deployments there are, and whether a device serves them."),
];

/// All of them.
pub fn paths() -> Paths {
    let mut paths = PathsBuilder::new();
    for (tag, method, model, verb, summary) in OF_MODEL {
        for version in ["", "/versions/{version}"] {
            let path = format!("{model}{version}{verb}");
            paths = paths.path(&path, item(tag, method.clone(), &path, summary));
        }
    }
    for (tag, method, path, summary) in OF_GATEWAY {
        paths = paths.path(path, item(tag, method, path, summary));
    }
    paths.build()
}

fn item(tag: &str, method: HttpMethod, path: &str, summary: &str) -> PathItem {
    let answer = |text: &str| ResponseBuilder::new().description(text).build();
    let responses = ResponsesBuilder::new()
        .response("200", answer("The device's own answer; `Muster-Device` and `Muster-Version` say whose."))
        .response("4XX", answer("`{\"error\": \"…\"}`: the request is wrong, too large, or one too many."))
        .response("5XX", answer("`{\"error\": \"…\"}`: no device answers now, or none did in time."));
    let mut operation = OperationBuilder::new().tag(tag).summary(Some(summary)).responses(responses.build());
    for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        let kind = if name == "version" { Type::Integer } else { Type::String };
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        operation = operation.parameter(parameter.schema(Some(ObjectBuilder::new().schema_type(kind))));
    }
    PathItem::new(method, operation)
}
