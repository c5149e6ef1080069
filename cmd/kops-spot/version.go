package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func versionCommand(c *console) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "says which version this is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := checkForm(output); err != nil {
				return err
			}
			if output == asJSON {
				return c.json(map[string]string{"version": version})
			}
			_, err := fmt.Fprintln(c.stdout, version)
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", asText, "the `form`: "+asText+" or "+asJSON)
	return cmd
}
