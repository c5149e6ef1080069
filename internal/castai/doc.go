// Package castai tells CAST AI's autoscaler what is about to happen to a node, so that it brings another one.
//
// One call is made of it: POST /v1/kubernetes/external-clusters/{cluster}/events, with the key in the header X-API-Key.
// CAST AI finds the node by its own id, where CAST AI has made it, and by its provider id where it has not. To tell the
// same twice does no harm, so whatever is in doubt may be told again.
package castai
