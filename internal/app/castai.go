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

// castaiKey is the name of CAST AI's key where a secret holds several texts.
const castaiKey = "castai"

// autoscaler is where CAST AI is, who we are there, and where the key is kept; zero where there is none.
type autoscaler struct {
	cluster, url string
	key          place
}

// readAutoscaler checks the settings about CAST AI, which count together. Their errors repeat no value: a key may have been
// put in the place of another.
func (c *Config) readAutoscaler(env map[string]string) (errs []error) {
	bad := func(name, format string, args ...any) { errs = append(errs, fmt.Errorf(name+": "+format, args...)) }
	cluster, key, url := env[envCASTAICluster], env[envCASTAIKey], env[envCASTAIURL]
	if cluster == "" && key == "" {
		if url != "" {
			bad(envCASTAIURL, "take it away, or set %s and %s too", envCASTAICluster, envCASTAIKey)
		}
		if c.Policy.Replace == spot.ReplacerAutoscaler {
			bad(envReplace, "set it to something else than %s, or set %s and %s: without them CAST AI cannot be told",
				spot.ReplacerAutoscaler, envCASTAICluster, envCASTAIKey)
		}
		return errs
	}
	in, name, _ := strings.Cut(key, ":")
	c.castai = autoscaler{cluster: cluster, url: url, key: place{in, name}}
	if cluster == "" {
		bad(envCASTAICluster, "set it to CAST AI's id of the cluster, a UUID, where %s is set", envCASTAIKey)
	} else if err := checkCASTAI(cluster, ""); err != nil {
		bad(envCASTAICluster, "%w", err)
	}
	switch {
	case key == "":
		bad(envCASTAIKey, "set it to where the API key is kept (secretsmanager:<secret>, ssm:<parameter> or file:<path>) where %s is set", envCASTAICluster)
	case !slices.Contains([]string{inSecret, inParameter, inFile}, in):
		bad(envCASTAIKey, "what stands there is no place, and may be the key itself, which everybody can read here who may look at the function: put the key "+
			"into a secret, a parameter or a file, set this to secretsmanager:<secret>, ssm:<parameter> or file:<path>, and if it was the key, make a new one")
	case name == "":
		bad(envCASTAIKey, "%s: is to be followed by a name", in)
	}
	if err := checkCASTAI(anyCluster, url); err != nil {
		bad(envCASTAIURL, "%w", err)
	}
	c.Policy.HasAutoscaler = len(errs) == 0
	return errs
}

// anyCluster has the form of CAST AI's ids, so that the URL can be checked by itself.
const anyCluster = "00000000-0000-0000-0000-000000000000"

// checkCASTAI is what the client says of a cluster's id and a URL.
func checkCASTAI(cluster, url string) error {
	return castai.Options{ClusterID: cluster, URL: url, Key: func(context.Context) (string, error) { return "", nil }}.Check()
}

// client is CAST AI's autoscaler; nil where there is none. It makes no request.
func (a autoscaler) client(cloud *aws.Cloud, userAgent string) spot.Autoscaler {
	if a == (autoscaler{}) {
		return nil
	}
	return castai.New(castai.Options{ClusterID: a.cluster, URL: a.url, Key: source(cloud, a.key, castaiKey), UserAgent: userAgent})
}
