// Package lambdalocal runs Lambda functions on this machine: real bootstrap
// binaries, built for provided.al2023, behind the HTTP path that AWS serves.
//
//	caller --Invoke API--> Service --Runtime API--> bootstrap process
//	                          |
//	                          +--asynchronous events: retries, age, destinations
//
// It follows the AWS Lambda Developer Guide and API reference. What the tests
// of this project rest on is modelled: invocation types, limits and errors of
// Invoke; reserved and account concurrency; init with its 10 second limit and
// the second try inside the first invocation; timeouts, crashes and warm reuse;
// freezing between invocations; the asynchronous queue with its retries and
// destination records; the lines Lambda adds to a function's log.
//
// Not modelled: IAM and request signatures, versions and aliases other than
// $LATEST, extensions and layers, response streaming, the client context, a
// memory or CPU limit, a file system of the function's own, provisioned
// concurrency, dead-letter queues, duplicate delivery without an error, and the
// rest of the Lambda API. Processes are confined by nothing but a process group:
// run only functions that may run here. Linux only, as Lambda is.
package lambdalocal
