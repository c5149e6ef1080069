package install

import (
	"context"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

const specification = "cluster-completed.spec"

// parse parses a file of a cluster and returns its URL.
func (s Store) parse(ctx context.Context, in Site, file string, into any) (name string, err error) {
	bucket, prefix, _ := strings.Cut(string(s), "/")
	key := strings.TrimPrefix(prefix+"/"+in.Name+"/"+file, "/")
	name = "s3://" + bucket + "/" + key
	text, err := in.AWS.Object(ctx, bucket, in.Account, key)
	if err == nil && text == nil {
		err = fmt.Errorf("%s does not exist", name)
	}
	if err == nil {
		if err = yaml.Unmarshal(text, into); err != nil {
			err = fmt.Errorf("parsing %s: %w", name, err)
		}
	}
	return name, err
}
