package aws

import (
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// plainBody hides the WriteTo method of a request's body. The SDK (smithy-go 1.28.8) closes the body when it has the
// response headers, and WriteTo of a closed body returns io.EOF. If net/http has not reached the end of the body yet, it
// treats this as a failed write and closes the connection in the middle of the response.
type plainBody struct{ client aws.HTTPClient }

func (c plainBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.client.Do(r)
}
