package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/term"
)

func versionCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "says which version this is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return c.tell(map[string]string{"version": version}, func(w io.Writer, _ term.Options) error {
				_, err := fmt.Fprintln(w, version)
				return err
			})
		},
	}
}
