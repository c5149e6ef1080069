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

// DefaultURL is where CAST AI's API is.
const DefaultURL = "https://api.cast.ai"

// Options says for which cluster, where and with which key.
type Options struct {
	ClusterID string // CAST AI's id of the cluster, a UUID
	URL       string // empty for DefaultURL

	// Key reads the API key. It is called when the key is first needed, and again when the key is refused, in case it was
	// replaced. It bounds its own time, and its errors never hold the key.
	Key func(context.Context) (string, error)

	UserAgent string       // such as kops-spot/1.2.3
	HTTP      *http.Client // nil for one of its own; its redirects are refused in any case
}

// uuid is the form of CAST AI's ids.
var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// Check says what is wrong with the options, and what to do about it, one line each. It makes no request, and repeats none of
// the values: a key may have been put in the place of another.
func (o Options) Check() error {
	var errs []error
	if !uuid.MatchString(o.ClusterID) {
		errs = append(errs, errors.New("CAST AI's id of the cluster is not a UUID: take it from the address of the cluster's page in CAST AI's console"))
	}
	if o.Key == nil {
		errs = append(errs, errors.New("there is no API key: make one in CAST AI's console and say where it is kept"))
	}
	return errors.Join(append(errs, checkURL(o.base()))...)
}

// checkURL refuses, too, what would send the key over the network unencrypted.
func checkURL(text string) error {
	const use = "use " + DefaultURL + ", or the https:// address that CAST AI has given you"
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("the URL of CAST AI's API cannot be read: " + use)
	case u.User != nil:
		return errors.New("the URL of CAST AI's API holds a user name or a password: take it out, the API knows its callers by their key")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("the URL of CAST AI's API goes on after its path, with ? or #: " + use)
	case u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("the URL of CAST AI's API does not begin with https:// and a host: " + use)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("the URL of CAST AI's API begins with http://, and the API key would cross the network unencrypted: " + use)
	}
	return nil
}

// loopback reports whether what is sent to the host stays on this machine.
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

func (o Options) eventsURL() string {
	return o.base() + "/v1/kubernetes/external-clusters/" + url.PathEscape(o.ClusterID) + "/events"
}
