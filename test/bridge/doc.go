// Package bridge plays the part of EventBridge and of Lambda's asynchronous invocation that moto does not: moto holds the
// rules, the targets, the functions and their policies, and the bridge acts on them.
//
//	caller --AWS_ENDPOINT_URL--> Bridge --all else--> moto
//	                               |  PutEvents, Deliver, Tick: rules and targets as moto holds them
//	                               |  PutRule: moto too, unless EventBridge would refuse the pattern
//	                               |  Invoke
//	                               +--> lambdalocal: the function's bootstrap, with moto's settings of the function
//	                                      |
//	                                      +--> SQS on moto (destinations), CloudWatch Logs on moto (the log)
//
// It is not the real EventBridge. It follows the EventBridge User Guide and API reference and the Lambda Developer Guide.
// Modelled is what this project rests on: event patterns (package pattern) and rule state; a target's Input, InputPath and
// InputTransformer; whether the function exists and its policy lets the rule invoke it; retries, the age of an event and
// the dead-letter queue of a target, with the queue's policy; a function's retries and destinations, as PutFunctionEventInvokeConfig
// set them; and the function's log group.
//
// Not modelled: targets other than Lambda functions and SQS queues; schedules by the clock (Tick fires one); archives,
// replays, pipes, schemas and global endpoints; other accounts and event buses' policies; a rule's and a target's roles;
// whether the function's own role allows it to write to its destination and log; quotas (five targets a rule, sizes,
// rates) but that of ten entries a request; signatures; duplicate and out-of-order delivery; jitter between retries;
// wildcards in JSON paths. What of this a call asks for is an error or a line in the journal, not silence.
package bridge
