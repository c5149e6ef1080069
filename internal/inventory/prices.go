package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/savings"
)

// Prices are prices from a file, in US dollars per hour.
type Prices struct {
	Sample   bool                          `yaml:"sample"`    // they are made up
	OnDemand map[string]float64            `yaml:"on_demand"` // by type
	Spot     map[string]map[string]float64 `yaml:"spot"`      // by type and zone
}

// ReadPrices reads prices from a file in YAML or JSON, of which it knows every field.
func ReadPrices(path string) (*Prices, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the prices: %w: choose another --prices", err)
	}
	p, err := parsePrices(text)
	if err != nil {
		return nil, fmt.Errorf("reading the prices of %s: %w: docs/savings.md has an example", path, err)
	}
	return p, nil
}

func parsePrices(text []byte) (*Prices, error) {
	var p Prices
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&p); err != nil {
		return nil, err
	}
	if decoder.Decode(new(any)) != io.EOF {
		return nil, errors.New("more than one document")
	}
	if len(p.OnDemand) == 0 {
		return nil, errors.New("on_demand is empty")
	}
	for name, price := range p.OnDemand {
		if !valid(price) {
			return nil, fmt.Errorf("the on-demand price of %s is %g", name, price)
		}
	}
	for name, zones := range p.Spot {
		for zone, price := range zones {
			if !valid(price) {
				return nil, fmt.Errorf("the Spot price of %s in %s is %g", name, zone, price)
			}
		}
	}
	return &p, nil
}

// valid reports whether a price per hour is possible; the dearest instances cost about 400 dollars.
func valid(price float64) bool { return price > 0 && price < 1e4 }

func (p *Prices) offers() map[savings.Offer]float64 {
	all := map[savings.Offer]float64{}
	for name, zones := range p.Spot {
		for zone, price := range zones {
			all[savings.Offer{Type: name, Zone: zone}] = price
		}
	}
	return all
}
