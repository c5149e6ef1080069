package aws

import (
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// plainBody hides that the body of a request can write itself. The SDK (smithy-go 1.28.8) closes the body as soon as it
// has the answer's head, and a body that is closed then returns io.EOF from WriteTo, where that is an error. If net/http
// has not yet looked whether the body is at its end, it takes that for a failed write and cuts the connection, in the
// middle of any answer that is longer than what it has in hand. It takes an answer that is quicker than a goroutine.
type plainBody struct{ client aws.HTTPClient }

func (c plainBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.client.Do(r)
}
