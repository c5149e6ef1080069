package castai

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// DefaultURL is the URL of CAST AI's API.
const DefaultURL = "https://api.cast.ai"

// Options configures a Client.
type Options struct {
	ClusterID string // CAST AI's id of the cluster, a UUID
	URL       string // empty for DefaultURL

	// Key reads the API key. It is called on first use, and again when the key is rejected. It bounds its own time, and
	// its errors never contain the key.
	Key func(context.Context) (string, error)

	UserAgent string       // such as kops-spot/1.2.3
	HTTP      *http.Client // nil for a default client; redirects are never followed
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// Check validates the options without a request. Its errors repeat no values: one of them may be a misplaced key.
func (o Options) Check() error {
	var errs []error
	if !uuid.MatchString(o.ClusterID) {
		errs = append(errs, errors.New("CAST AI's ID of the cluster is not a UUID: "+
			"copy it from the URL of the cluster's page in CAST AI's console"))
	}
	if o.Key == nil {
		errs = append(errs, errors.New("the API key is missing: create one in CAST AI's console and configure where it is stored"))
	}
	return errors.Join(append(errs, checkURL(o.base()))...)
}

// checkURL also rejects URLs that would send the key unencrypted over the network.
func checkURL(text string) error {
	const use = "use " + DefaultURL + ", or the https:// URL from CAST AI"
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("the URL of CAST AI's API is invalid: " + use)
	case u.User != nil:
		return errors.New("the URL of CAST AI's API contains a user name or password: remove it, the API uses the key only")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("the URL of CAST AI's API has a query or fragment: " + use)
	case u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("the URL of CAST AI's API does not begin with https:// and a host: " + use)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("the URL of CAST AI's API begins with http://, which would send the API key unencrypted: " + use)
	}
	return nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (o Options) base() string {
	if o.URL == "" {
		return DefaultURL
	}
	return strings.TrimRight(o.URL, "/")
}

func (o Options) clusterURL() string {
	return o.base() + "/v1/kubernetes/external-clusters/" + url.PathEscape(o.ClusterID)
}
