package aws

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// slowWrites is a connection whose writes return a while after they are done.
type slowWrites struct{ net.Conn }

func (c slowWrites) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	time.Sleep(50 * time.Millisecond)
	return n, err
}

// TestResponseBeforeEndOfRequest: a response that begins before the end of the request is known to be sent is read
// completely.
func TestResponseBeforeEndOfRequest(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		answer := described("", id)
		io.WriteString(w, answer[:10])
		w.(http.Flusher).Flush()
		time.Sleep(time.Second)
		io.WriteString(w, answer[10:])
	}))
	t.Cleanup(s.Close)
	c := New(aws.Config{
		Region: "eu-west-1", BaseEndpoint: aws.String(s.URL),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: secret}, nil
		}),
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network,
			to string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, to)
			return slowWrites{conn}, err
		}}},
	})
	if i, err := c.Instance(t.Context(), id); err != nil || i.ID != id {
		t.Errorf("got %+v, %v", i, err)
	}
}
