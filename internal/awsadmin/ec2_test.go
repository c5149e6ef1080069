package awsadmin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// TestNetwork reads all pages of a VPC's route tables, interface endpoints and security groups.
func TestNetwork(t *testing.T) {
	pages := map[string][]string{
		"DescribeRouteTables": {`<routeTableSet><item>
				<associationSet><item><main>true</main></item><item><main>false</main><subnetId>subnet-1</subnetId></item></associationSet>
				<routeSet>
					<item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId><state>active</state></item>
					<item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><natGatewayId>nat-1</natGatewayId><state>blackhole</state></item>
					<item><destinationIpv6CidrBlock>::/0</destinationIpv6CidrBlock><gatewayId>igw-1</gatewayId><state>active</state></item>
					<item><destinationPrefixListId>pl-1</destinationPrefixListId><gatewayId>vpce-1</gatewayId><state>active</state></item>
				</routeSet>
			</item></routeTableSet><nextToken>2</nextToken>`,
			`<routeTableSet><item><routeSet>
				<item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><transitGatewayId>tgw-1</transitGatewayId><state>active</state></item>
			</routeSet></item></routeTableSet>`},
		"DescribeVpcEndpoints": {`<vpcEndpointSet><item><vpcEndpointId>vpce-1</vpcEndpointId><serviceName>com.amazonaws.eu-west-1.ec2</serviceName>
				<state>available</state><privateDnsEnabled>true</privateDnsEnabled><groupSet><item><groupId>sg-1</groupId></item></groupSet></item></vpcEndpointSet>
			<nextToken>2</nextToken>`,
			`<vpcEndpointSet><item><vpcEndpointId>vpce-2</vpcEndpointId><serviceName>com.amazonaws.eu-west-1.ssm</serviceName><state>pending</state></item></vpcEndpointSet>`},
		"DescribeSecurityGroups": {`<securityGroupInfo><item><groupId>sg-1</groupId><ipPermissions>
				<item><ipProtocol>tcp</ipProtocol><fromPort>443</fromPort><toPort>443</toPort><groups><item><groupId>sg-f</groupId></item></groups></item>
				<item><ipProtocol>tcp</ipProtocol><fromPort>80</fromPort><toPort>442</toPort><ipRanges><item><cidrIp>1.0.0.0/8</cidrIp></item></ipRanges></item>
				<item><ipProtocol>udp</ipProtocol><fromPort>0</fromPort><toPort>65535</toPort><ipRanges><item><cidrIp>2.0.0.0/8</cidrIp></item></ipRanges></item>
			</ipPermissions></item></securityGroupInfo><nextToken>2</nextToken>`,
			`<securityGroupInfo><item><groupId>sg-2</groupId><ipPermissions>
				<item><ipProtocol>-1</ipProtocol><ipRanges><item><cidrIp>10.0.0.0/8</cidrIp></item></ipRanges></item>
				<item><ipProtocol>tcp</ipProtocol><fromPort>0</fromPort><toPort>65535</toPort><prefixListIds><item><prefixListId>pl-2</prefixListId></item></prefixListIds></item>
			</ipPermissions></item></securityGroupInfo>`},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("Filter.1.Name") != "vpc-id" || r.FormValue("Filter.1.Value.1") != "vpc-1" {
			t.Errorf("got %v", r.Form)
		}
		page := pages[r.FormValue("Action")][map[string]int{"": 0, "2": 1}[r.FormValue("NextToken")]]
		fmt.Fprintf(w, "<%[1]sResponse>%[2]s</%[1]sResponse>", r.FormValue("Action"), page)
	}))
	defer server.Close()
	account := New(aws.Config{Region: "eu-west-1", BaseEndpoint: &server.URL, Credentials: aws.AnonymousCredentials{}})
	tables, err := account.RouteTables(t.Context(), "vpc-1")
	if want := []RouteTable{{Subnets: []string{"subnet-1"}, Main: true, Routes: []Route{{To: "0.0.0.0/0", Via: "nat-1", Broken: true},
		{To: "pl-1", Via: "vpce-1"}}},
		{Routes: []Route{{To: "0.0.0.0/0", Via: "tgw-1"}}}}; err != nil || !reflect.DeepEqual(tables, want) {
		t.Errorf("got %+v, %v", tables, err)
	}
	endpoints, err := account.Endpoints(t.Context(), "vpc-1")
	if want := []Endpoint{{ID: "vpce-1", Service: "com.amazonaws.eu-west-1.ec2", Available: true, PrivateDNS: true, Groups: []string{"sg-1"}},
		{ID: "vpce-2", Service: "com.amazonaws.eu-west-1.ssm"}}; err != nil || !reflect.DeepEqual(endpoints, want) {
		t.Errorf("got %+v, %v", endpoints, err)
	}
	sources, err := account.HTTPSSources(t.Context(), "vpc-1")
	if want := map[string][]string{"sg-1": {"sg-f"}, "sg-2": {"10.0.0.0/8", "pl-2"}}; err != nil || !reflect.DeepEqual(sources, want) {
		t.Errorf("got %v, %v", sources, err)
	}
}
