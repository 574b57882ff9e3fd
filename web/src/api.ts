// Made by `npm run types`. Do not edit.

export interface paths {
    "/api/v1/blobs/{sha256}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** Takes the bytes of a file that a pushed manifest names. */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    /** @description the file's digest */
                    sha256: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/octet-stream": number[];
                };
            };
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                507: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/bundles": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The bundles, by model and version. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["BundleView"][];
                    };
                };
            };
        };
        put?: never;
        /** Takes a manifest; says which files are missing. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            /** @description a manifest in its DSSE envelope */
            requestBody: {
                content: {
                    "application/json": Record<string, never>;
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["PushStatus"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/claims": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The claims, the newest first. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ClaimView"][];
                    };
                };
            };
        };
        put?: never;
        /** Makes a claim; its secret is shown once. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["NewClaim"];
                };
            };
            responses: {
                201: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Claim"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/claims/named": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Makes a claim for each of many devices, all or none; their secrets are shown once. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["NewClaims"];
                };
            };
            responses: {
                201: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Claim"][];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/claims/{id}/revoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** The claim counts no more; devices that it enrolled stay. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The deployments, by name. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Deployment"][];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One deployment. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Deployment"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        /** Creates a deployment, or puts it in the place of the one with its name. */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["Deployment"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Deployment"];
                    };
                };
                201: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Deployment"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        post?: never;
        /** Removes a deployment; devices let its model go. */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments/{name}/explain": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Why a deployment is as it is. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeploymentExplained"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments/{name}/rollout": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The rollout in force. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RolloutView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments/{name}/rollout/pause": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** No further device gets the new version; those that have it go on. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RolloutView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments/{name}/rollout/resume": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * A rollout that is held goes on; one that stopped begins again, and devices try once more what they
         *     refused.
         */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RolloutView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments/{name}/rollout/undo": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Every device goes back to the version before. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RolloutView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments/{name}/rollouts": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The rollouts that are remembered, the newest first. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["RolloutView"][];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/deployments/{name}/scale": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** Changes how many replicas are wanted, and nothing else. */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    name: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["Scale"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Deployment"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The devices, by id. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceView"][];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One device. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        /** Forgets a revoked device: its name is free, its key stays revoked. */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/approve": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Lets a device in that waits, takes one back that is held, lets a cloned one go on. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/chunks": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What a device was sent of each chunk, since this plane started. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ChunkCount"][];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/cordon": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Nothing new comes to the device; what is there stays. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/decommission": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * The device leaves the fleet: it gets nothing but the word to empty itself, and its key is revoked once it said
         *     that it has. `departure` says so.
         */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["Revoke"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/diagnosis": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What a device believes and why it does what it does, in its own words: asked of it by a signed command. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description JSON of the device's own making */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": Record<string, never>;
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                502: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                503: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/drain": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Nothing new comes to the device, and what is there moves elsewhere; each replica serves until
         *     another one serves in its place.
         */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/explain": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Why a device is as it is. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceExplained"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/history": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A device's telemetry of the last minutes, summed up into at most 300 points. */
        get: {
            parameters: {
                query?: {
                    /** @description 60, where nothing is said; at most 7 days */
                    minutes?: number;
                };
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["History"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/revoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * The device's key is revoked: it is cut off at once, and never comes back. It is shown until it is
         *     deleted; one that was held is forgotten at once.
         */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["Revoke"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/devices/{id}/uncordon": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Replicas may come to the device again. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DeviceView"];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/enrol": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Enrols a device with a claim, or by its place on the factory list; the same key gets its certificate
         *     again. Status 202: an operator has yet to let it in.
         */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["Enrol"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Enrolled"];
                    };
                };
                202: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["EnrolWaiting"];
                    };
                };
                403: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                429: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The events, the newest first. */
        get: {
            parameters: {
                query?: {
                    limit?: number;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["EventView"][];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/factory": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The factory list, the oldest entries first. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["FactoryView"][];
                    };
                };
            };
        };
        put?: never;
        /** Puts keys on the factory list: their devices enrol without a claim, each once. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["FactoryKey"][];
                };
            };
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                507: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/factory/{fingerprint}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Takes a key off the factory list; a device that enrolled with it stays. */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    fingerprint: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/feed": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The whole picture, then what changes: server-sent events `snapshot` (a `FeedSnapshot`), `change`
         *     (a `FeedChange`), `beat` (nothing new), and `again` (this reader was too slow: connect anew).
         */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "text/event-stream": components["schemas"]["FeedMessage"];
                    };
                };
                503: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/info": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What anyone may know of this control plane. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Info"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/login": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** The first run's one-time code against a token. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["Login"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Token"];
                    };
                };
                401: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/password": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** Changes one's own password; every other session of the user ends. */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["NewPassword"];
                };
            };
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                401: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                429: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/plan": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** What would change, and why, without changing it. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["PlanRequest"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["PlanView"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/plan/approve": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Where the database was put back, the planner goes on with it. Else devices that are silent are taken for
         *     lost, and those that hold more than this database remembers go back to it. These are two steps: by the
         *     first, what the planner wants of such devices may become right again.
         */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["PlanView"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/releases": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The releases of the agent, the newest first. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ReleaseView"][];
                    };
                };
            };
        };
        put?: never;
        /** Takes a release; says which files are missing. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            /** @description a release in its DSSE envelope */
            requestBody: {
                content: {
                    "application/json": Record<string, never>;
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ReleasePushed"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/releases/{version}/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A file of a release; `release.json` is the release itself in its DSSE envelope. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    version: string;
                    name: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/octet-stream": number[];
                    };
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                429: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        /** Takes the bytes of a file that a pushed release names. */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    version: string;
                    name: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/octet-stream": number[];
                };
            };
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                404: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                507: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/renew": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** The next certificate for an enrolled key. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["Renew"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Enrolled"];
                    };
                };
                403: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                429: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/session": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whose session it is. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["SessionView"];
                    };
                };
                401: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        put?: never;
        /** A user's name and password against a session, which comes as a cookie. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["Credentials"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["SessionView"];
                    };
                };
                401: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                429: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        /** Ends the session. */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                204: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                401: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/trust/director": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The key that signs desired states here, to be named by the root. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DirectorKey"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/trust/director/next": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Makes the director's next key, or says which one waits: it takes the place of the present one as soon
         *     as a root names it and not the present one.
         */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["DirectorKey"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/trust/floors": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Every version floor in its envelope, by model, also those whose signers the root names no more. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description DSSE envelopes */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": Record<string, never>[];
                    };
                };
            };
        };
        put?: never;
        /** Takes a version floor. Floors only rise. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            /** @description a version floor in its DSSE envelope */
            requestBody: {
                content: {
                    "application/json": Record<string, never>;
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["FloorView"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/trust/roots": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Every root in its envelope, by version. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description DSSE envelopes */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": Record<string, never>[];
                    };
                };
            };
        };
        put?: never;
        /** Takes the first or the next root. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            /** @description a root document in its DSSE envelope */
            requestBody: {
                content: {
                    "application/json": Record<string, never>;
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["TrustView"];
                    };
                };
                409: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
                422: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["Problem"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/whoami": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whose token it is. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["WhoAmI"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** How the versions fare. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}/metadata": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What the model takes and gives. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}/versions/{version}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** How the versions fare. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}/versions/{version}/metadata": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What the model takes and gives. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}/versions/{version}:classify": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Runs the model on examples: classes and scores. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}/versions/{version}:predict": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Runs the model on rows or columns. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}/versions/{version}:regress": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Runs the model on examples: a number for each. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}:classify": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Runs the model on examples: classes and scores. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}:predict": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Runs the model on rows or columns. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{deployment}:regress": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Runs the model on examples: a number for each. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What the gateway is, and which extensions it knows. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/health/live": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whether the gateway runs. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/health/ready": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whether the gateway answers. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What the model takes and gives. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/config": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The model, as Triton's configuration files tell it. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/infer": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Runs the model on tensors, as JSON or binary. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/ready": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whether the model answers. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/stats": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What the device that answers has counted. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/versions/{version}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What the model takes and gives. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/versions/{version}/config": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The model, as Triton's configuration files tell it. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/versions/{version}/infer": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Runs the model on tensors, as JSON or binary. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/versions/{version}/ready": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whether the model answers. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/models/{deployment}/versions/{version}/stats": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What the device that answers has counted. */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    deployment: string;
                    version: number;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v2/repository/index": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Which deployments there are, and whether a device serves them. */
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                /** @description The device's own answer; `Muster-Device` and `Muster-Version` say whose. */
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: the request is wrong, too large, or one too many. */
                "4XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
                /** @description `{"error": "…"}`: no device answers now, or none did in time. */
                "5XX": {
                    headers: {
                        [name: string]: unknown;
                    };
                    content?: never;
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description Something that could compute beside the processor. That it is here does not mean that an engine uses it. */
        Accelerator: {
            /** @description The kernel's driver. */
            driver?: string | null;
            /** @description What it is for. */
            kind: components["schemas"]["AcceleratorKind"];
            /** @description Whether the agent may open it; absent: there is nothing to open. */
            mayOpen?: boolean | null;
            /** @description `NVIDIA Orin`, `Coral USB Accelerator`; the driver's name where nothing better is told. */
            name: string;
            /** @description Where it is opened. */
            node?: string | null;
        };
        /**
         * @description What an accelerator is for.
         * @enum {string}
         */
        AcceleratorKind: "gpu" | "npu";
        /** @description One file of a release. */
        Artifact: {
            /**
             * Format: int64
             * @description Its length.
             */
            bytes: number;
            /** @description What it is. */
            kind: components["schemas"]["ArtifactKind"];
            /** @description Its name in the release's folder. */
            name: components["schemas"]["ArtifactName"];
            /** @description Its digest. */
            sha256: components["schemas"]["Digest"];
            /** @description The machines that it is for. */
            target: components["schemas"]["Target"];
        };
        /**
         * @description What a file of a release is.
         * @enum {string}
         */
        ArtifactKind: "agent" | "package" | "sbom";
        /** @description A file of a release. It may stand in a path, a URL and a shell's line as it is. */
        ArtifactName: string;
        /**
         * @description What a battery does.
         * @enum {string}
         */
        BatteryState: "charging" | "discharging" | "idle";
        /** @description A board or a machine, by its own name. */
        Board: {
            /** @description The device tree's names for it, the most exact one first. */
            compatible: string[];
            /** @description `Raspberry Pi 4 Model B Rev 1.4`, `ThinkPad X1 Carbon Gen 9`. */
            model: string;
            /** @description Who made it, where the firmware says so apart from the model. */
            vendor?: string | null;
        };
        /** @description A bundle, for machines and for people. */
        BundleRef: {
            /** @description SHA-256 of the manifest's payload. */
            manifest: components["schemas"]["Digest"];
            /** @description The model. */
            model: components["schemas"]["ModelName"];
            /** @description Its version. */
            version: components["schemas"]["Version"];
        };
        /** @description One bundle. */
        BundleView: {
            /**
             * @description Why nothing begins with it, if nothing may: it is below its model's version floor, or nobody
             *     whom the root names signed it.
             */
            barred?: string | null;
            /**
             * Format: int64
             * @description Bytes of all its files.
             */
            bytes: number;
            /** @description Whether all its files are there. */
            complete: boolean;
            /** @description The digest of f, of the first variant. */
            graph: components["schemas"]["Digest"];
            /** @description What it takes. */
            inputs: components["schemas"]["Port"][];
            /** @description SHA-256 of the manifest's payload. */
            manifest: components["schemas"]["Digest"];
            /** @description The model. */
            model: components["schemas"]["ModelName"];
            /** @description What it gives. */
            outputs: components["schemas"]["Port"][];
            /** @description When it was pushed. */
            pushedMs: components["schemas"]["u64"];
            /** @description The variants' names. */
            variants: string[];
            /** @description Its version. */
            version: components["schemas"]["Version"];
            /** @description The digest of θ, of the first variant. */
            weights: components["schemas"]["Digest"];
        };
        /** @description Bytes: `64Mi`, `1Gi`, `500M`, `4096`. */
        Bytes: string;
        /**
         * @description What changes on a device.
         * @enum {string}
         */
        Change: "place" | "update" | "leave" | "remove";
        /** @description One change on one device. */
        ChangeView: {
            /** @description What changes. */
            change: components["schemas"]["Change"];
            /** @description The deployment. */
            deployment: components["schemas"]["DeploymentName"];
            /** @description The device. */
            device: components["schemas"]["DeviceId"];
            version?: components["schemas"]["Version"] | null;
            /** @description Why. */
            why: string;
        };
        /** @description How often frames of one chunk were sent to a device. */
        ChunkCount: {
            /** @description The blob. */
            blob: components["schemas"]["Digest"];
            /**
             * Format: int32
             * @description The chunk's number in it.
             */
            chunk: number;
            /**
             * Format: int64
             * @description Frames sent, repeated ones included.
             */
            frames: number;
        };
        /** @description A new claim; the CLI makes the token that a device needs of it. */
        Claim: {
            /** @description When it ends. */
            expiresMs: components["schemas"]["u64"];
            /** @description 8 bytes, hex. */
            id: string;
            /** @description 16 bytes, hex; shown once. */
            secret: string;
        };
        /** @description A claim without its secret. */
        ClaimView: {
            /** @description When it ends. */
            expiresMs: components["schemas"]["u64"];
            /** @description 8 bytes, hex. */
            id: string;
            /** @description Labels that every device enrolled with it gets. */
            labels?: {
                [key: string]: string;
            };
            /** @description Labels that a device may set itself as it enrols. */
            mayLabel?: string[];
            /** @description Whether a device may set any label. */
            mayLabelAnything?: boolean;
            name?: components["schemas"]["DeviceId"] | null;
            /** @description Whether an operator lets each device in by hand. */
            needsApproval?: boolean;
            /**
             * Format: int32
             * @description How many it has.
             */
            used: number;
            /**
             * Format: int32
             * @description How many devices it may enrol.
             */
            uses: number;
            /** @description Whether it counts no more: it was revoked, or made before the database went back to an earlier state. */
            void?: boolean;
        };
        /** @description A device that is to come. */
        ClaimedDevice: {
            /** @description Labels that it gets. */
            labels?: {
                [key: string]: string;
            };
            /** @description The name that it gets, which nobody else gets meanwhile. */
            name: components["schemas"]["DeviceId"];
        };
        /** @description A condition, as Kubernetes has them. */
        Condition: {
            /** @description A sentence. */
            message: string;
            /** @description One word. */
            reason: string;
            /** @description When it last changed. */
            sinceMs: components["schemas"]["u64"];
            /** @description Whether it holds. */
            status: boolean;
            /** @description `Available`, `Placed`, `Progressing`. */
            type: string;
        };
        /** @description Cores of one kind. */
        CoreKind: {
            /**
             * Format: int32
             * @description What one of them can do: 1024 is the strongest core of this machine.
             */
            capacity?: number | null;
            /**
             * Format: int32
             * @description How many there are.
             */
            count: number;
            /**
             * Format: int64
             * @description The highest frequency that the hardware has.
             */
            khzMax?: number | null;
            /** @description `Cortex-A76`; `performance` and `efficient` where a processor has both and tells no more. */
            name?: string | null;
        };
        /** @description A person logs in: the body of `POST /session`. */
        Credentials: {
            /** @description The user's password. */
            password: string;
            /** @description The user's name. */
            user: string;
        };
        /** @description What is asked of a deployment, in cores. */
        Demand: {
            /** @description Requests per second, R and A over all replicas. */
            figures: components["schemas"]["Figures"];
            /**
             * Format: int32
             * @description Replicas that this demand needs.
             */
            replicasNeeded: number;
            /** @description The sum as a person would write it: `40/s × 25 core-ms = 1.0 core; ÷ (500m × 70 %) → 3 replicas`. */
            sentence: string;
        };
        /** @description A device that was told to empty itself. */
        Departure: {
            /** @description When an operator asked for it. */
            askedMs: components["schemas"]["u64"];
            confirmedMs?: components["schemas"]["u64"] | null;
        };
        /** @description The resource. */
        Deployment: {
            /** @description [`API_VERSION`]. */
            apiVersion: string;
            /** @description [`KIND`]. */
            kind: string;
            /** @description Its name and labels. */
            metadata: components["schemas"]["Metadata"];
            /** @description What is wanted. */
            spec: components["schemas"]["Spec"];
            status?: components["schemas"]["Status"] | null;
        };
        /** @description Why a deployment is as it is. */
        DeploymentExplained: {
            demand?: components["schemas"]["Demand"] | null;
            /** @description Whether silence of many devices holds moves back, for a person. */
            frozen?: string | null;
            /** @description The deployment. */
            name: components["schemas"]["DeploymentName"];
            /**
             * Format: int32
             * @description Replicas that answer with the version they should.
             */
            ready: number;
            /** @description Each replica, with the reason why it is there. */
            replicas: components["schemas"]["Replica"][];
            rollout?: components["schemas"]["RolloutView"] | null;
            version?: components["schemas"]["Version"] | null;
            /** @description What waits, for a person; empty: nothing does. */
            waiting: string[];
            /**
             * Format: int32
             * @description Replicas wanted.
             */
            wanted: number;
        };
        /** @description A deployment as the live stream tells it. */
        DeploymentLive: {
            demand?: components["schemas"]["Demand"] | null;
            /** @description What is wanted, and what is. */
            resource: components["schemas"]["Deployment"];
        };
        /** @description What an operator wants served, and the name that doors use. */
        DeploymentName: string;
        /** @description A desired state that was not taken. */
        DesiredRefused: {
            /** @description The device's clock. */
            atMs: components["schemas"]["u64"];
            generation?: components["schemas"]["Generation"] | null;
            /** @description Why, for a person. */
            reason: string;
        };
        /** @description Why a device is as it is. */
        DeviceExplained: {
            /**
             * Format: int32
             * @description Thousandths of a core that models may use, and that replicas were granted.
             */
            cpuMilli?: number | null;
            /**
             * Format: int32
             * @description Thousandths of a core that its replicas were granted.
             */
            cpuMilliGranted: number;
            /** @description The device. */
            id: components["schemas"]["DeviceId"];
            /**
             * Format: int64
             * @description Bytes of memory that models may use.
             */
            memoryBytes?: number | null;
            /**
             * Format: int64
             * @description Bytes of memory that its replicas were granted.
             */
            memoryBytesGranted: number;
            /** @description What keeps new replicas away, for a person. */
            obstacles: string[];
            /** @description Whether it is there, for a person. */
            presence: string;
            /** @description Its replicas, with the reason why each is there. */
            replicas: components["schemas"]["DeviceReplica"][];
            /** @description What an operator wants of it. */
            schedule: components["schemas"]["Schedule"];
        };
        /** @description A device on which a version failed. */
        DeviceFailure: {
            /** @description Which. */
            device: components["schemas"]["DeviceId"];
            /** @description Why. */
            reason: string;
        };
        /** @description One machine with one agent and one key. */
        DeviceId: string;
        /** @description One replica on a device. */
        DeviceReplica: {
            /** @description Of which deployment. */
            deployment: components["schemas"]["DeploymentName"];
            /** @description The replica. */
            replica: components["schemas"]["Replica"];
        };
        /** @description One device. */
        DeviceView: {
            applied?: components["schemas"]["Generation"] | null;
            /** @description Whether the broker holds a connection of it. */
            connected: boolean;
            departure?: components["schemas"]["Departure"] | null;
            desired?: components["schemas"]["Generation"] | null;
            desiredRefused?: components["schemas"]["DesiredRefused"] | null;
            /** @description When it was enrolled. */
            enrolledMs: components["schemas"]["u64"];
            facts?: components["schemas"]["Facts"] | null;
            /** @description SHA-256 of its key. */
            fingerprint: components["schemas"]["Digest"];
            health?: components["schemas"]["Health"] | null;
            host?: components["schemas"]["HostSample"] | null;
            /** @description Its id. */
            id: components["schemas"]["DeviceId"];
            /** @description Labels of its claim and of its owner. */
            labels: {
                [key: string]: string;
            };
            lastSeenMs?: components["schemas"]["u64"] | null;
            /** @description Each of its models, summed over the telemetry that is kept. */
            models: components["schemas"]["ModelView"][];
            /** @description What else it says that a person should know: its clock, its owner's limits, who signed what runs. */
            notes?: string[];
            /** @description Bundles that it will not try again. */
            refusals: components["schemas"]["Refusal"][];
            /** @description What an operator wants of it. */
            schedule?: components["schemas"]["Schedule"];
            silentSinceMs?: components["schemas"]["u64"] | null;
            /** @description Its slots as it last reported them. */
            slots: components["schemas"]["SlotReport"][];
            /** @description Whether it is one of the fleet. */
            standing?: components["schemas"]["Standing"];
            /** @description Why it is not simply a member. */
            standingWhy?: string | null;
        };
        /** @description A SHA-256 digest. */
        Digest: string;
        /** @description The key that signs desired states here. */
        DirectorKey: {
            /** @description To be named by the root. */
            key: components["schemas"]["PublicKey"];
            next?: components["schemas"]["PublicKey"] | null;
        };
        /**
         * @description Element types that travel.
         * @enum {string}
         */
        Dtype: "bool" | "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" | "f16" | "f32" | "f64" | "string";
        /** @description A device asks for its first certificate. */
        Enrol: {
            /** @description The claim's id, hex; none: the key is on the factory list. */
            claim?: string | null;
            /** @description A certificate request made with the device's key, PEM. */
            csr: string;
            /** @description What its owner calls it. */
            labels?: {
                [key: string]: string;
            };
            name?: components["schemas"]["DeviceId"] | null;
            /** @description The claim's secret, hex. */
            secret?: string | null;
        };
        /** @description A device was noted, and waits for an operator (status 202): it asks again later. */
        EnrolWaiting: {
            /** @description What it waits for. */
            detail: string;
            /** @description The name it will have. */
            device: components["schemas"]["DeviceId"];
        };
        /** @description A device's certificate and what it needs to connect. */
        Enrolled: {
            /** @description The CA's certificate, PEM; its digest must be the pinned one. */
            ca: string;
            /** @description Its client certificate, PEM. */
            certificate: string;
            /** @description The device's id. */
            device: components["schemas"]["DeviceId"];
            /** @description The broker as `host:port`; an empty host is the host of this request. */
            mqtt: string;
            /** @description Every root so far, by version. */
            roots: Record<string, never>[];
            /**
             * @description The listener for devices, which carries MQTT over WebSocket, as `host:port`; an empty host is the
             *     host of this request. An older control plane has none.
             */
            tunnel?: string | null;
        };
        /** @description Something that happened. */
        EventView: {
            /** @description When the plane heard of it. */
            atMs: components["schemas"]["u64"];
            deployment?: components["schemas"]["DeploymentName"] | null;
            device?: components["schemas"]["DeviceId"] | null;
            /** @description What. */
            kind: components["schemas"]["Happening"];
            /** @description The particulars. */
            text: string;
        };
        /** @description A key that may enrol without a claim. */
        FactoryKey: {
            /** @description SHA-256 of the public key (SubjectPublicKeyInfo in DER). */
            fingerprint: components["schemas"]["Digest"];
            /** @description Labels that its device gets. */
            labels?: {
                [key: string]: string;
            };
            name?: components["schemas"]["DeviceId"] | null;
        };
        /** @description A key on the factory list. */
        FactoryView: {
            /** @description SHA-256 of the public key. */
            fingerprint: components["schemas"]["Digest"];
            /** @description Labels that its device gets. */
            labels: {
                [key: string]: string;
            };
            name?: components["schemas"]["DeviceId"] | null;
            spentMs?: components["schemas"]["u64"] | null;
        };
        /** @description What a machine is. Absent facts are unknown, not zero. */
        Facts: {
            /** @description The agent's version. */
            agent: string;
            /** @description `x86_64`, `aarch64`, `arm`. */
            arch: string;
            /**
             * Format: int32
             * @description Thousandths of a core that models may use together.
             */
            cpuMilli: number;
            /** @description The processor's name. */
            cpuModel?: string | null;
            /**
             * Format: int64
             * @description Bytes free where bundles are stored.
             */
            diskFreeBytes?: number | null;
            /** @description `tract`, `onnxruntime`, … */
            engines: string[];
            /** @description What it is made of. */
            hardware?: components["schemas"]["Hardware"];
            /** @description What confines workers here, and what the kernel could not give. */
            isolation: string[];
            /** @description What its owner calls it. */
            labels: {
                [key: string]: string;
            };
            /**
             * Format: int64
             * @description Bytes of memory that models may use together.
             */
            memoryBytes: number;
            /** @description The operating system's name and release. */
            os: string;
        };
        /** @description What changed since the message before: event name `change`. */
        FeedChange: {
            /** @description When it was seen. */
            atMs: components["schemas"]["u64"];
            /** @description Deployments that changed, as they are now. */
            deployments: components["schemas"]["DeploymentLive"][];
            /** @description Deployments that are no longer there. */
            deploymentsGone: components["schemas"]["DeploymentName"][];
            /** @description Devices that changed, as they are now. */
            devices: components["schemas"]["DeviceView"][];
            /** @description Devices that are no longer there. */
            devicesGone: components["schemas"]["DeviceId"][];
            /**
             * Format: int32
             * @description Devices beyond the bound of this stream.
             */
            devicesLeftOut: number;
            /** @description What happened since, the newest first. */
            events: components["schemas"]["EventView"][];
            fleet?: components["schemas"]["FleetId"] | null;
            /** @description Groups of devices that are silent together now. */
            frozen: components["schemas"]["FreezeView"][];
            /** @description Why nothing changes because the database was put back; none: it was not, or is approved. */
            restored?: string | null;
        };
        /** @description The data of one message of `GET /feed`; its event name says which. */
        FeedMessage: components["schemas"]["FeedSnapshot"] | components["schemas"]["FeedChange"];
        /** @description The whole picture: the first message of `GET /feed`, with the event name `snapshot`. */
        FeedSnapshot: {
            /** @description When it was taken. */
            atMs: components["schemas"]["u64"];
            /** @description The deployments, by name. */
            deployments: components["schemas"]["DeploymentLive"][];
            /** @description The devices, by id. */
            devices: components["schemas"]["DeviceView"][];
            /**
             * Format: int32
             * @description Devices beyond the bound of this stream; those in trouble are never among them before others.
             */
            devicesLeftOut: number;
            /** @description What happened last, the newest first. */
            events: components["schemas"]["EventView"][];
            fleet?: components["schemas"]["FleetId"] | null;
            /** @description Groups of devices that fell silent together, so that nothing of theirs moves. */
            frozen: components["schemas"]["FreezeView"][];
            /** @description Why nothing changes because the database was put back; none: it was not. */
            restored?: string | null;
            /** @description The control plane's version. */
            version: string;
        };
        /** @description What one model on one device uses and gives. */
        Figures: {
            /**
             * Format: double
             * @description R: core-milliseconds for one prediction; none: no prediction succeeded.
             */
            coreMsPerPrediction?: number | null;
            /**
             * Format: double
             * @description A: cores demanded, requests per second × R ÷ 1000.
             */
            coresDemanded: number;
            /**
             * Format: double
             * @description Median latency in milliseconds.
             */
            p50Ms?: number | null;
            /**
             * Format: double
             * @description 99th percentile of latency in milliseconds.
             */
            p99Ms?: number | null;
            /**
             * Format: double
             * @description Predictions asked for in a second.
             */
            requestsPerSecond: number;
            /**
             * Format: double
             * @description The *share* of the device's processors that it was granted, 0 to 1; none: the device has yet to
             *     say what it is.
             */
            share?: number | null;
            /**
             * Format: double
             * @description The time they are taken over, in seconds.
             */
            windowSeconds: number;
        };
        /** @description A file, by its content. */
        FileRef: {
            /**
             * Format: int64
             * @description Its length.
             */
            bytes: number;
            /** @description The digest of its chunk index ([`crate::chunk::ChunkIndex`]). */
            chunkIndex: components["schemas"]["Digest"];
            /** @description Its digest. */
            sha256: components["schemas"]["Digest"];
        };
        /** @description All devices of one control plane. */
        FleetId: string;
        /** @description A version floor in force. */
        FloorView: {
            /** @description The model. */
            model: components["schemas"]["ModelName"];
            newest?: components["schemas"]["Version"] | null;
            /** @description The lowest version that may run. */
            version: components["schemas"]["Version"];
        };
        /** @description Many devices that fell silent together. */
        FreezeView: {
            /** @description Those that are silent. */
            devices: components["schemas"]["DeviceId"][];
            /** @description The whole fleet, or the site's name. */
            group: string;
            /** @description What to do about it. */
            message: string;
            /**
             * Format: int32
             * @description Devices of the group that were there before.
             */
            of: number;
            /** @description Since when. */
            sinceMs: components["schemas"]["u64"];
        };
        /** @description Orders desired states: epoch first, then generation. */
        Generation: {
            /**
             * Format: int64
             * @description Set by the offline root; a new epoch is the way back from a stolen director's jump.
             */
            epoch: number;
            /**
             * Format: int64
             * @description Grows by at least one with each signing.
             */
            number: number;
        };
        /**
         * @description What can happen in a fleet: on a device, or in the control plane.
         * @enum {string}
         */
        Happening: "desiredRefused" | "bundleRefused" | "chunkDiscarded" | "serving" | "rolledBack" | "workerCrashed" | "started" | "deviceLost" | "deviceReturned" | "replicaMoved" | "movesFrozen" | "movesResumed" | "rolloutStarted" | "rolloutWave" | "rolloutPaused" | "rolloutStopped" | "rolloutUndone" | "rolloutDone" | "trustRefused" | "trustChanged" | "distrusted" | "clock" | "throttling" | "enrolmentRefused" | "deviceEnrolled" | "deviceHeld" | "deviceLeaving" | "deviceRevoked" | "databaseRestored";
        /** @description What a machine is made of. */
        Hardware: {
            /**
             * @description What could compute beside the processor; at most [`crate::limits::ACCELERATORS_MAX`].
             * @default []
             */
            accelerators: components["schemas"]["Accelerator"][];
            /** @default null */
            board: components["schemas"]["Board"] | null;
            /**
             * @description Its processor's cores by kind, the strongest kind first; at most [`crate::limits::CORE_KINDS_MAX`].
             * @default []
             */
            cores: components["schemas"]["CoreKind"][];
            /**
             * @description What the processor can do that engines make use of: `neon`, `dotprod`, `fp16`, `avx2`, `fma`, …; at
             *     most [`crate::limits::CPU_FEATURES_MAX`].
             * @default []
             */
            cpuFeatures: string[];
            /**
             * @description The kernel's release.
             * @default null
             */
            kernel: string | null;
            /**
             * @description The C library that this agent was built for: `glibc`, `musl`.
             * @default null
             */
            libc: string | null;
            /**
             * Format: int64
             * @description All of its memory.
             * @default null
             */
            memoryBytes: number | null;
            /**
             * @description The system on a chip: `brcm,bcm2711`, `NVIDIA Tegra234`.
             * @default null
             */
            soc: string | null;
            /**
             * Format: int64
             * @description Room for what does not fit into memory; 0: there is none.
             * @default null
             */
            swapBytes: number | null;
        };
        /** @description How a machine's hardware fares, at the time of a report. */
        Health: {
            /**
             * Format: int64
             * @description The highest frequency that is allowed now, where that is less than the hardware has.
             * @default null
             */
            khzAllowed: number | null;
            /**
             * @description What it is fed by; at most [`crate::limits::POWER_SOURCES_MAX`].
             * @default []
             */
            power: components["schemas"]["PowerSource"][];
            /**
             * @description Mount points of file systems that are meant to be written and may only be read; at most
             *     [`crate::limits::MOUNTS_MAX`].
             * @default []
             */
            readOnly: string[];
            /** @default null */
            storage: components["schemas"]["Storage"] | null;
            /**
             * @description What slows it down now.
             * @default []
             */
            strains: components["schemas"]["Strain"][];
            /**
             * @description What slowed it down since it was started, as far as its firmware remembers.
             * @default []
             */
            strainsSinceBoot: components["schemas"]["Strain"][];
            /**
             * @description Its sensors, the hottest first; at most [`crate::limits::SENSORS_MAX`].
             * @default []
             */
            temperatures: components["schemas"]["Temperature"][];
        };
        /** @description A device's telemetry over a time, summed up into buckets. */
        History: {
            /**
             * Format: int64
             * @description How long one point's time is.
             */
            bucketMs: number;
            /** @description Whether there was more than is summed up at once, so that the oldest is left out. */
            cut: boolean;
            /** @description The device. */
            device: components["schemas"]["DeviceId"];
            /** @description When the time begins, by the device's clock. */
            fromMs: components["schemas"]["u64"];
            /** @description The oldest first; a time in which nothing came has no point. */
            points: components["schemas"]["HistoryPoint"][];
            /** @description When it ends. */
            untilMs: components["schemas"]["u64"];
        };
        /** @description One model in one point's time. */
        HistoryModel: {
            /** @description Its slot. */
            deployment: components["schemas"]["DeploymentName"];
            /**
             * Format: double
             * @description Median latency in milliseconds; none: it was not asked.
             */
            p50Ms?: number | null;
            /**
             * Format: double
             * @description 99th percentile in milliseconds.
             */
            p99Ms?: number | null;
            /**
             * Format: double
             * @description Predictions asked for in a second.
             */
            requestsPerSecond: number;
            /**
             * Format: int64
             * @description The newest version that answered.
             */
            version: number;
        };
        /** @description One point of a history. */
        HistoryPoint: {
            /** @description The beginning of its time. */
            atMs: components["schemas"]["u64"];
            /**
             * Format: int32
             * @description Share of all cores in use on average, in thousandths.
             */
            cpuPermille: number;
            /**
             * Format: int64
             * @description Memory there is.
             */
            memoryBytes: number;
            /**
             * Format: int64
             * @description The most memory in use.
             */
            memoryUsedBytes: number;
            /** @description Each model that was there. */
            models: components["schemas"]["HistoryModel"][];
        };
        /** @description The machine. Absent: the kernel does not tell. */
        HostSample: {
            /**
             * Format: int32
             * @description How full its emptiest battery is.
             */
            batteryPercent?: number | null;
            /**
             * Format: int32
             * @description Share of all cores in use, in thousandths.
             */
            cpuPermille: number;
            /**
             * Format: int64
             * @description Disk there.
             */
            diskBytes?: number | null;
            /**
             * Format: int64
             * @description Disk free where bundles are stored.
             */
            diskFreeBytes?: number | null;
            /**
             * Format: int64
             * @description Memory there is.
             */
            memoryBytes: number;
            /**
             * Format: int64
             * @description Memory in use.
             */
            memoryUsedBytes: number;
            /** @description Whether it is fed from outside. */
            onMains?: boolean | null;
            /** @description What slows it down. */
            strains?: components["schemas"]["Strain"][];
            /**
             * Format: int32
             * @description The hottest sensor, in thousandths of a degree Celsius. The others stand in the reported state, which
             *     comes less often and is kept once.
             */
            temperatureMillicelsius?: number | null;
        };
        /** @description What anyone may know of a control plane. */
        Info: {
            /** @description SHA-256 of the CA's certificate (DER). */
            caFingerprint: components["schemas"]["Digest"];
            fleet?: components["schemas"]["FleetId"] | null;
            /**
             * Format: int64
             * @description The version of the newest root; none: `muster keys init` has yet to be run.
             */
            rootVersion?: number | null;
            /** @description Its version. */
            version: string;
        };
        /** @description The first run's one-time code against a token. */
        Login: {
            /** @description As the control plane printed it. */
            code: string;
        };
        /** @description Measured on this machine while the golden vectors ran. */
        Measured: {
            /**
             * Format: int64
             * @description Median wall time of one prediction of one row, in microseconds.
             */
            latencyUs: number;
            /**
             * Format: int64
             * @description The worker's peak resident memory.
             */
            memoryPeakBytes: number;
        };
        /**
         * @description What a disk is.
         * @enum {string}
         */
        Medium: "emmc" | "sdCard" | "nvme" | "ssd" | "hardDisk" | "usb" | "virtual" | "flash" | "memory";
        /** @description Name and labels. */
        Metadata: {
            /**
             * Format: int64
             * @description Grows with each change of `spec`; ours.
             */
            generation?: number | null;
            /** @description Labels of the deployment itself. */
            labels?: {
                [key: string]: string;
            };
            /** @description The deployment's name, which doors use too. */
            name: components["schemas"]["DeploymentName"];
        };
        /** @description Thousandths of a core: `500m` or `2`. */
        MilliCpu: string;
        /** @description Milliseconds: `60s`, `5m`, `1h`, `7d`, `250ms`. */
        Millis: string;
        /** @description A model, whose versions are bundles. */
        ModelName: string;
        /** @description One model on one device. */
        ModelView: {
            /**
             * Format: int64
             * @description Processor time that the good ones took, in microseconds.
             */
            cpuUs?: number;
            /** @description Its slot. */
            deployment: components["schemas"]["DeploymentName"];
            /**
             * Format: int64
             * @description Those that failed by our fault or the model's.
             */
            errors: number;
            figures?: components["schemas"]["Figures"] | null;
            /**
             * Format: double
             * @description Median latency in microseconds.
             */
            p50Us?: number | null;
            /**
             * Format: double
             * @description 99th percentile in microseconds.
             */
            p99Us?: number | null;
            /**
             * Format: int64
             * @description Predictions asked for.
             */
            requests: number;
            /**
             * Format: int64
             * @description The version that answered.
             */
            version: number;
        };
        /** @description Asks for a claim. */
        NewClaim: {
            /** @description Labels that every device enrolled with it gets. */
            labels?: {
                [key: string]: string;
            };
            /** @description Labels that a device may set itself as it enrols. */
            mayLabel?: string[];
            /** @description Whether a device may set any label. */
            mayLabelAnything?: boolean;
            /** @description Whether an operator lets each device in by hand. */
            needsApproval?: boolean;
            /**
             * Format: int64
             * @description How long it lives, in seconds.
             */
            ttlSeconds: number;
            /**
             * Format: int32
             * @description How many devices it may enrol.
             */
            uses: number;
        };
        /** @description Asks for claims of one device each, whose names are known beforehand: all of them, or none. */
        NewClaims: {
            /** @description The devices, at most [`crate::limits::CLAIMS_AT_A_TIME_MAX`]. */
            devices: components["schemas"]["ClaimedDevice"][];
            /** @description Whether an operator lets each device in by hand. */
            needsApproval?: boolean;
            /** @description Whether open claims for the same names end; else the names are refused. */
            replace?: boolean;
            /**
             * Format: int64
             * @description How long the claims live, in seconds.
             */
            ttlSeconds: number;
        };
        /** @description Changes one's own password: the body of `PUT /password`. */
        NewPassword: {
            /** @description The one in force. */
            current: string;
            /** @description The one to come. */
            next: string;
        };
        /**
         * @description What becomes of the replica of a device that stays silent.
         * @enum {string}
         */
        OnDeviceLoss: "move" | "keep";
        /**
         * @description Where a slot stands in its life.
         * @enum {string}
         */
        Phase: "empty" | "fetching" | "checking" | "probation" | "serving" | "refused";
        /** @description What to plan: the body of `POST /plan`. */
        PlanRequest: {
            /** @description Deployments as they would be applied; those that are not named stay as they are. */
            deployments?: components["schemas"]["Deployment"][];
        };
        /** @description What would change, and what waits. */
        PlanView: {
            /** @description What would change, by deployment and device. */
            changes: components["schemas"]["ChangeView"][];
            /** @description Groups of devices that fell silent together, so that nothing of theirs moves. */
            frozen: components["schemas"]["FreezeView"][];
            /** @description Why nothing changes until an operator approves, where that is so. */
            restored?: string | null;
            /** @description What waits, by deployment. */
            waiting: components["schemas"]["WaitingView"][];
        };
        /** @description One input or output. */
        Port: {
            /** @description The element type. */
            dtype: components["schemas"]["Dtype"];
            /** @description The name in the graph. */
            name: string;
            /** @description Sizes; `null` where any size goes (the batch, usually the first). */
            shape: (number | null)[];
        };
        /**
         * @description Kinds of power sources.
         * @enum {string}
         */
        PowerKind: "battery" | "mains";
        /** @description What a machine is fed by. */
        PowerSource: {
            /** @description What it is. */
            kind: components["schemas"]["PowerKind"];
            /** @description The kernel's name for it: `AC`, `BAT0`. */
            name: string;
            /** @description Whether it gives power now; of mains. */
            online?: boolean | null;
            /**
             * Format: int32
             * @description How full it is; of a battery.
             */
            percent?: number | null;
            state?: components["schemas"]["BatteryState"] | null;
        };
        /** @description An error, RFC 9457, with Muster's `hint`: the next move. */
        Problem: {
            /** @description What was attempted and why it failed. */
            detail: string;
            /** @description What to do next. */
            hint?: string | null;
            /**
             * Format: int32
             * @description The HTTP status.
             */
            status: number;
            /** @description The HTTP status in words. */
            title: string;
        };
        /** @description An Ed25519 public key: 32 bytes, hex in JSON. */
        PublicKey: string;
        /** @description What a pushed manifest still needs. */
        PushStatus: {
            /** @description Why it will not be placed although it was taken, if it will not. */
            barred?: string | null;
            /** @description The bundle. */
            manifest: components["schemas"]["Digest"];
            /** @description Files whose bytes the plane does not have; empty: the bundle is whole. */
            missing: components["schemas"]["FileRef"][];
        };
        /** @description A bundle that is not tried again: proven bad on verified bytes. */
        Refusal: {
            /** @description The agent that refused it: another one may manage. */
            agent: string;
            /** @description The device's clock. */
            atMs: components["schemas"]["u64"];
            /**
             * Format: int32
             * @description The attempt that failed; a later one is made.
             */
            attempt: number;
            /** @description The bundle. */
            bundle: components["schemas"]["BundleRef"];
            /** @description What was proven. */
            kind: components["schemas"]["RefusalKind"];
            /**
             * Format: int64
             * @description The memory that it was granted; with more, one that needed too much is tried again.
             */
            memoryBytes: number;
            /** @description The particulars, for a person. */
            reason: string;
        };
        /**
         * @description What can be proven of a bundle.
         * @enum {string}
         */
        RefusalKind: "goldenMismatch" | "cannotLoad" | "crashedInProbation" | "tooMuchMemoryInProbation";
        /** @description What a pushed release still needs. */
        ReleasePushed: {
            /** @description Files whose bytes the plane does not have; empty: the release is whole. */
            missing: components["schemas"]["Artifact"][];
            newer?: components["schemas"]["ReleaseVersion"] | null;
            /** @description The release. */
            version: components["schemas"]["ReleaseVersion"];
        };
        /** @description A release's version: SemVer without build metadata, which would not count in the order. */
        ReleaseVersion: string;
        /** @description One release. */
        ReleaseView: {
            /** @description Its files. */
            artifacts: components["schemas"]["Artifact"][];
            /** @description Whether all its files are there. */
            complete: boolean;
            /** @description When it was made, by its maker's clock. */
            issuedMs: components["schemas"]["u64"];
            /** @description Whether it is the one to install: the newest that is whole and believed. */
            offered: boolean;
            /** @description When it was pushed. */
            pushedMs: components["schemas"]["u64"];
            /** @description Why it is not believed under the newest root, if it is not. */
            refused?: string | null;
            /** @description Its version. */
            version: components["schemas"]["ReleaseVersion"];
        };
        /** @description A device asks for its next certificate. */
        Renew: {
            /** @description A [`crate::message::Renewal`], signed by the enrolled key. */
            renewal: Record<string, never>;
        };
        /** @description One replica. */
        Replica: {
            /** @description Where. */
            device: components["schemas"]["DeviceId"];
            figures?: components["schemas"]["Figures"] | null;
            /** @description Whether it goes as soon as another one serves. */
            leaving: boolean;
            /** @description The bundle it is to run. */
            manifest: components["schemas"]["Digest"];
            phase?: components["schemas"]["Phase"] | null;
            /** @description Why it does not go on. */
            reason?: string | null;
            running?: components["schemas"]["Version"] | null;
            /** @description The version it is to run. */
            version: components["schemas"]["Version"];
            /** @description Why it is on this device. */
            why: string;
        };
        /**
         * @description How much of an eMMC's spare blocks is used.
         * @enum {string}
         */
        Reserve: "normal" | "warning" | "urgent";
        /** @description What a replica is granted. */
        Resources: {
            /**
             * @description Thousandths of a core.
             * @default 250m
             */
            cpu: components["schemas"]["MilliCpu"];
            /**
             * @description Memory.
             * @default 128Mi
             */
            memory: components["schemas"]["Bytes"];
        };
        /** @description Asks for a device to be revoked. */
        Revoke: {
            /** @description Why, for whoever reads the list later. */
            reason?: string;
        };
        /** @description How a new version comes. */
        Rollout: {
            /**
             * @description Devices that may fail before the rollout stops. A wave in which none succeeds stops it anyway.
             * @default 0
             */
            maxFailed: string;
            /**
             * @description How long a device watches a new version before it lets the old one go.
             * @default 1m
             */
            probation: components["schemas"]["Millis"];
            /**
             * @description How long a device may be at it without any progress before it counts as failed; its probation
             *     comes on top.
             * @default 10m
             */
            progressDeadline: components["schemas"]["Millis"];
            /**
             * @description The only strategy so far.
             * @default Waves
             */
            strategy: components["schemas"]["Strategy"];
            /**
             * @description How many devices have the new version after each wave, in all; the last is `100%`.
             * @default [
             *       1,
             *       "25%",
             *       "100%"
             *     ]
             */
            waves: string[];
        };
        /**
         * @description How far a rollout is.
         * @enum {string}
         */
        RolloutStage: "running" | "paused" | "stopped" | "undone" | "done";
        /** @description A version change over the fleet. */
        RolloutView: {
            /** @description When it began. */
            beganMs: components["schemas"]["u64"];
            /** @description When its stage or its wave last changed. */
            changedMs: components["schemas"]["u64"];
            /**
             * Format: int32
             * @description Devices that have the deployment.
             */
            devices: number;
            /** @description Devices on which it failed, and why. */
            failed: components["schemas"]["DeviceFailure"][];
            /**
             * Format: int32
             * @description Devices that are to have the new version now.
             */
            granted: number;
            /**
             * Format: int32
             * @description Those of them on which it passed its probation.
             */
            healthy: number;
            /** @description What it waits for, or how it ended, for a person. */
            message: string;
            /**
             * Format: int64
             * @description Counts the rollouts of this deployment.
             */
            number: number;
            previous?: components["schemas"]["Version"] | null;
            /** @description How far it is. */
            stage: components["schemas"]["RolloutStage"];
            /** @description The version it brings. */
            version: components["schemas"]["Version"];
            /**
             * Format: int32
             * @description The wave under way, from 1.
             */
            wave: number;
            /**
             * Format: int32
             * @description How many waves there are.
             */
            waves: number;
        };
        /** @description How many replicas an operator wants now: the body of `PUT /deployments/{name}/scale`. */
        Scale: {
            /**
             * Format: int32
             * @description How many.
             */
            replicas: number;
        };
        /**
         * @description What an operator wants of a device.
         * @enum {string}
         */
        Schedule: "open" | "cordoned" | "draining";
        /** @description Labels that a device must carry. */
        Selector: {
            /** @description All of them, with these values. */
            matchLabels?: {
                [key: string]: string;
            };
        };
        /** @description Whose session it is. */
        SessionView: {
            /** @description The user. */
            user: string;
        };
        /** @description One slot. */
        SlotReport: {
            /** @description The slot's key. */
            deployment: components["schemas"]["DeploymentName"];
            measured?: components["schemas"]["Measured"] | null;
            /** @description Where it stands. */
            phase: components["schemas"]["Phase"];
            /**
             * Format: int32
             * @description How often its worker was started again.
             */
            restarts: number;
            running?: components["schemas"]["BundleRef"] | null;
            /** @description Why it does not go on, for a person. */
            waiting?: string | null;
            wanted?: components["schemas"]["BundleRef"] | null;
        };
        /** @description What is wanted. */
        Spec: {
            /** @description How long a device may be silent before its replica moves. */
            deviceLossGrace?: components["schemas"]["Millis"];
            /** @description Whether every matching device serves it; `replicas` is left out then. */
            everyDevice?: boolean;
            /** @description The model. */
            model: components["schemas"]["ModelName"];
            /** @description What becomes of the replica of a device that stays silent. */
            onDeviceLoss?: components["schemas"]["OnDeviceLoss"];
            /**
             * Format: int32
             * @description How many devices serve it.
             */
            replicas?: number;
            /** @description What each replica is granted. */
            resources?: components["schemas"]["Resources"];
            /** @description How a new version comes. */
            rollout?: components["schemas"]["Rollout"];
            /** @description Which devices may. */
            selector?: components["schemas"]["Selector"];
            servedAs?: components["schemas"]["DeploymentName"] | null;
            /** @description Which version. */
            version?: string;
        };
        /**
         * @description Whether a device is one of the fleet.
         * @enum {string}
         */
        Standing: "member" | "waiting" | "held" | "cloned" | "leaving" | "revoked";
        /** @description What is. */
        Status: {
            /**
             * @description Why something waits, for a person.
             * @default []
             */
            conditions: components["schemas"]["Condition"][];
            /**
             * Format: int64
             * @description The `metadata.generation` that this status speaks of.
             * @default 0
             */
            observedGeneration: number;
            /**
             * Format: int32
             * @description Replicas that answer with the wanted version.
             * @default 0
             */
            ready: number;
            /**
             * @description Each replica.
             * @default []
             */
            replicas: components["schemas"]["Replica"][];
            /** @default null */
            rollout: components["schemas"]["RolloutView"] | null;
            /** @default null */
            version: components["schemas"]["Version"] | null;
            /**
             * Format: int32
             * @description Replicas wanted.
             * @default 0
             */
            wanted: number;
        };
        /** @description What holds the agent's data. */
        Storage: {
            /** @description The whole disk: `mmcblk0`, `nvme0n1`; absent for what is no disk. */
            device?: string | null;
            /** @description The file system on it. */
            filesystem?: string | null;
            medium?: components["schemas"]["Medium"] | null;
            /** @description Whether it may only be read. */
            readOnly: boolean;
            reserve?: components["schemas"]["Reserve"] | null;
            /**
             * Format: int32
             * @description How much of its life is used at most, in percent; more than 100: beyond what it was built for.
             */
            wearPercent?: number | null;
        };
        /**
         * @description What makes a machine slower than it is built to be.
         * @enum {string}
         */
        Strain: "underVoltage" | "frequencyCapped" | "throttled" | "softTemperatureLimit" | "coolingDown";
        /**
         * @description How a rollout goes through the devices.
         * @enum {string}
         */
        Strategy: "Waves";
        /** @description A kind of machine, as Rust's compiler names it: `aarch64-unknown-linux-gnu`. */
        Target: string;
        /** @description One sensor's reading. */
        Temperature: {
            /**
             * Format: int32
             * @description Where the machine saves itself by stopping.
             */
            criticalMillicelsius?: number | null;
            /**
             * Format: int32
             * @description In thousandths of a degree Celsius.
             */
            millicelsius: number;
            /** @description `cpu-thermal`, `nvme Composite`. */
            sensor: string;
        };
        /** @description An API token. */
        Token: {
            /** @description To be sent as `Authorization: Bearer …`; shown once. */
            token: string;
            /** @description Whose it is. */
            user: string;
        };
        /** @description The trust in force. */
        TrustView: {
            /** @description SHA-256 of its payload. */
            digest: components["schemas"]["Digest"];
            /** @description When it expires. */
            expiresMs: components["schemas"]["u64"];
            /** @description The fleet. */
            fleet: components["schemas"]["FleetId"];
            /**
             * Format: int64
             * @description The newest root's version.
             */
            version: number;
        };
        /**
         * Format: int64
         * @description A model's version: a positive 64-bit integer.
         */
        Version: number;
        /** @description Something that waits. */
        WaitingView: {
            /** @description The deployment. */
            deployment: components["schemas"]["DeploymentName"];
            /** @description What for. */
            why: string;
        };
        /** @description Whose token it is. */
        WhoAmI: {
            /** @description The user. */
            user: string;
        };
        /** Format: int64 */
        u64: number;
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
