package authenticator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/viper"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/aws-iam-authenticator/pkg/config"
	"sigs.k8s.io/aws-iam-authenticator/pkg/endpoints"
	"sigs.k8s.io/aws-iam-authenticator/pkg/mapper"
	"sigs.k8s.io/aws-iam-authenticator/pkg/mapper/file"
)

// TestFiles compares the outcome that internal/identitymap expects of each file with that of the authenticator's own
// decoder and validation. Its command, which calls them in this order, cannot be imported.
func TestFiles(t *testing.T) {
	archive, err := txtar.ParseFile("../../internal/identitymap/testdata/startup.txtar")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{"cluster-id": "clusterID", "backend-mode": "server.backendMode"}
	for _, f := range archive.Files {
		t.Run(f.Name, func(t *testing.T) {
			v := viper.New()
			v.SetDefault("server.partition", endpoints.AwsPartitionID)
			v.SetDefault("server.backendMode", []string{mapper.ModeMountedFile})
			fails := false
			for line := range strings.Lines(string(f.Data)) {
				if flag, is := strings.CutPrefix(line, "# flags: "); is {
					name, value, _ := strings.Cut(strings.TrimSpace(flag), "=")
					v.Set(keys[name], value)
				}
				fails = fails || strings.HasPrefix(line, "# want: ")
			}
			if err := start(v, string(f.Data)); (err != nil) != fails {
				t.Errorf("the authenticator starts: %v; expected an error: %v", err, fails)
			}
		})
	}
}

func start(v *viper.Viper, text string) error {
	v.SetConfigType("yaml")
	if err := v.ReadConfig(strings.NewReader(text)); err != nil {
		return err
	}
	cfg := config.Config{ClusterID: v.GetString("clusterID"), PartitionID: v.GetString("server.partition"),
		BackendMode: v.GetStringSlice("server.backendMode"), DynamicFilePath: v.GetString("server.dynamicFilePath")}
	var reserved []config.ReservedPrefixConfig
	for key, into := range map[string]any{"mapRoles": &cfg.RoleMappings, "mapUsers": &cfg.UserMappings,
		"mapAccounts": &cfg.AutoMappedAWSAccounts, "reservedPrefixConfig": &reserved} {
		if err := v.UnmarshalKey("server."+key, into); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	switch {
	case cfg.ClusterID == "":
		return errors.New("cluster ID cannot be empty")
	case !slices.Contains(endpoints.PARTITIONS, cfg.PartitionID):
		return errors.New("invalid partition")
	case slices.Contains(cfg.BackendMode, mapper.ModeDynamicFile) != (cfg.DynamicFilePath != ""):
		return errors.New("a dynamic file and its backend need each other")
	}
	if errs := mapper.ValidateBackendMode(cfg.BackendMode); len(errs) > 0 {
		return errors.Join(errs...)
	}
	if !slices.Contains(cfg.BackendMode, mapper.ModeMountedFile) {
		return nil
	}
	_, err := file.NewFileMapper(cfg)
	return err
}
