package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/castai"
	"github.com/castai/kops-spot/internal/spot"
)

// castaiKey is the key under which a JSON secret holds CAST AI's API key.
const castaiKey = "castai"

// autoscaler configures the client of CAST AI's API. It is zero if CAST AI is not used.
type autoscaler struct {
	cluster, url string
	key          location
}

// readAutoscaler reads the settings for CAST AI. Its errors never contain a value, which may be a key in the wrong
// setting.
func (c *Config) readAutoscaler(env map[string]string) (errs []error) {
	bad := func(name, format string, args ...any) { errs = append(errs, fmt.Errorf(name+": "+format, args...)) }
	cluster, key, url := env[envCASTAICluster], env[envCASTAIKey], env[envCASTAIURL]
	if cluster == "" && key == "" {
		if url != "" {
			bad(envCASTAIURL, "remove it, or also set %s and %s", envCASTAICluster, envCASTAIKey)
		}
		if c.Policy.Replace == spot.ReplacerAutoscaler {
			bad(envReplace, "%s requires %s and %s: set both, or choose another value",
				spot.ReplacerAutoscaler, envCASTAICluster, envCASTAIKey)
		}
		return errs
	}
	in, name, _ := strings.Cut(key, ":")
	c.castai = autoscaler{cluster: cluster, url: url, key: location{in, name}}
	if cluster == "" {
		bad(envCASTAICluster, "set it to the ID of the cluster in CAST AI, a UUID: it is required by %s", envCASTAIKey)
	} else if err := checkCASTAI(cluster, ""); err != nil {
		bad(envCASTAICluster, "%w", err)
	}
	switch {
	case key == "":
		bad(envCASTAIKey, "set it to the location of the API key (secretsmanager:<secret>, ssm:<parameter> or file:<path>): it is required by %s", envCASTAICluster)
	case !slices.Contains([]string{inSecret, inParameter, inFile}, in):
		bad(envCASTAIKey, "not a location: store the API key in a secret, parameter or file, and set this to secretsmanager:<secret>, "+
			"ssm:<parameter> or file:<path>; if the value was the key itself, create a new key: everybody with access to the "+
			"function's configuration can read it")
	case name == "":
		bad(envCASTAIKey, "add a name after %s:", in)
	}
	if err := checkCASTAI(anyCluster, url); err != nil {
		bad(envCASTAIURL, "%w", err)
	}
	c.Policy.HasAutoscaler = len(errs) == 0
	return errs
}

// anyCluster is a valid ID, used to check the URL alone.
const anyCluster = "00000000-0000-0000-0000-000000000000"

// checkCASTAI validates a cluster ID and a URL.
func checkCASTAI(cluster, url string) error {
	return castai.Options{ClusterID: cluster, URL: url, Key: func(context.Context) (string, error) { return "", nil }}.Check()
}

// client returns the client of CAST AI's API, or nil if CAST AI is not used. It makes no requests.
func (a autoscaler) client(cloud *aws.Cloud, userAgent string) *castai.Client {
	if a == (autoscaler{}) {
		return nil
	}
	return castai.New(castai.Options{ClusterID: a.cluster, URL: a.url, Key: source(cloud, a.key, castaiKey), UserAgent: userAgent})
}
