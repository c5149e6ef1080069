package awsadmin

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// Rights are the policies of a user or a role.
type Rights struct {
	Attached []string          // ARNs of managed policies
	Inline   map[string]string // documents by policy name
	Boundary string            // ARN of the permissions boundary; empty for none
}

// User is an IAM user.
type User struct {
	Name string
	Tags map[string]string
	Rights
	Groups      []string
	Keys        []Key
	Credentials []Credential // other than access keys
}

// Credential is a credential of a user other than an access key. While a user has one, IAM does not delete it.
type Credential struct {
	Kind, ID string
	Remove   []string // the command of the AWS CLI without "aws iam" and the user
}

// Role is an IAM role.
type Role struct {
	Name  string
	Trust string // policy document
	Tags  map[string]string
	Rights
	Profiles []string // instance profiles that contain it
}

// Key is an access key without its secret.
type Key struct {
	ID      string
	Active  bool
	Created time.Time
	Used    bool // ever; only KeysUsed sets it
}

// NewKey is an access key with its secret, which IAM returns only once.
type NewKey struct {
	ID     string `json:"accessKeyId"`
	Secret string `json:"secretAccessKey"`
}

// String and GoString return the ID only, so that no log contains the secret.
func (k NewKey) String() string   { return k.ID }
func (k NewKey) GoString() string { return k.ID }

// JSON returns the key in the form in which it is stored, with the secret.
func (k NewKey) JSON() []byte {
	b, _ := json.Marshal(k) // two strings never fail
	return b
}

// Policy is a customer managed policy, and who uses it, attached or as a boundary.
type Policy struct {
	Name, ARN            string
	Document             string // of the default version
	Tags                 map[string]string
	Versions             []Version
	Users, Roles, Groups []string
}

// Version is a version of a managed policy. The default version is in effect and cannot be deleted.
type Version struct {
	ID      string
	Default bool
	Created time.Time
}

// MaxVersions is IAM's limit for a managed policy.
const MaxVersions = 5

// UserNames lists all users. Names that differ only in case cannot coexist in an account, yet IAM looks them up by
// their exact case. So finding a user means listing all of them; the same holds for roles and policies.
func (a *Account) UserNames(ctx context.Context) ([]string, error) {
	return every(ctx, "", iam.NewListUsersPaginator(a.iam, &iam.ListUsersInput{}),
		func(p *iam.ListUsersOutput) []types.User { return p.Users },
		func(u types.User) string { return aws.ToString(u.UserName) })
}

// RoleNames returns the paths of all roles by name.
func (a *Account) RoleNames(ctx context.Context) (map[string]string, error) {
	all, err := every(ctx, "", iam.NewListRolesPaginator(a.iam, &iam.ListRolesInput{}),
		func(p *iam.ListRolesOutput) []types.Role { return p.Roles }, itself)
	return mapOf(all, func(r types.Role) (name, path *string) { return r.RoleName, r.Path }), err
}

// PolicyARNs returns the ARNs of the customer managed policies by name.
func (a *Account) PolicyARNs(ctx context.Context) (map[string]string, error) {
	in := &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeLocal}
	all, err := every(ctx, "", iam.NewListPoliciesPaginator(a.iam, in),
		func(p *iam.ListPoliciesOutput) []types.Policy { return p.Policies }, itself)
	return mapOf(all, func(p types.Policy) (name, arn *string) { return p.PolicyName, p.Arn }), err
}

// User reads a user; nil if there is none.
func (a *Account) User(ctx context.Context, name string) (*User, error) {
	u, err := a.user(ctx, name)
	if err != nil {
		return nil, unlessNone(err)
	}
	on := "user " + name
	if err = rights(ctx, on, &u.Rights,
		iam.NewListAttachedUserPoliciesPaginator(a.iam, &iam.ListAttachedUserPoliciesInput{UserName: &name}),
		func(p *iam.ListAttachedUserPoliciesOutput) []types.AttachedPolicy { return p.AttachedPolicies },
		iam.NewListUserPoliciesPaginator(a.iam, &iam.ListUserPoliciesInput{UserName: &name}),
		func(p *iam.ListUserPoliciesOutput) []string { return p.PolicyNames },
		func(policy string) (*iam.GetUserPolicyOutput, error) {
			return a.iam.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: &name, PolicyName: &policy})
		}, func(p *iam.GetUserPolicyOutput) *string { return p.PolicyDocument }); err != nil {
		return nil, err
	}
	if u.Groups, err = every(ctx, on,
		iam.NewListGroupsForUserPaginator(a.iam, &iam.ListGroupsForUserInput{UserName: &name}),
		func(p *iam.ListGroupsForUserOutput) []types.Group { return p.Groups },
		func(g types.Group) string { return aws.ToString(g.GroupName) }); err != nil {
		return nil, err
	}
	if u.Credentials, err = a.credentials(ctx, name); err != nil {
		return nil, err
	}
	u.Keys, err = every(ctx, on, iam.NewListAccessKeysPaginator(a.iam, &iam.ListAccessKeysInput{UserName: &name}),
		func(p *iam.ListAccessKeysOutput) []types.AccessKeyMetadata { return p.AccessKeyMetadata },
		func(k types.AccessKeyMetadata) Key {
			return Key{aws.ToString(k.AccessKeyId), k.Status == types.StatusTypeActive, aws.ToTime(k.CreateDate), false}
		})
	return u, err
}

// credentials reads a user's credentials other than access keys.
func (a *Account) credentials(ctx context.Context, user string) (all []Credential, err error) {
	on := "user " + user
	_, err = a.iam.GetLoginProfile(ctx, &iam.GetLoginProfileInput{UserName: &user})
	if err = translate(on, err); err == nil {
		all = append(all, Credential{"console password", "", []string{"delete-login-profile"}})
	} else if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	add := func(some []Credential, bad error) {
		all, err = append(all, some...), errors.Join(err, bad)
	}
	err = nil
	add(every(ctx, on, iam.NewListMFADevicesPaginator(a.iam, &iam.ListMFADevicesInput{UserName: &user}),
		func(p *iam.ListMFADevicesOutput) []types.MFADevice { return p.MFADevices },
		func(d types.MFADevice) Credential {
			id := aws.ToString(d.SerialNumber)
			return Credential{"MFA device", id, []string{"deactivate-mfa-device", "--serial-number", id}}
		}))
	add(every(ctx, on, iam.NewListSSHPublicKeysPaginator(a.iam, &iam.ListSSHPublicKeysInput{UserName: &user}),
		func(p *iam.ListSSHPublicKeysOutput) []types.SSHPublicKeyMetadata { return p.SSHPublicKeys },
		func(k types.SSHPublicKeyMetadata) Credential {
			id := aws.ToString(k.SSHPublicKeyId)
			return Credential{"SSH key", id, []string{"delete-ssh-public-key", "--ssh-public-key-id", id}}
		}))
	add(every(ctx, on, iam.NewListSigningCertificatesPaginator(a.iam, &iam.ListSigningCertificatesInput{UserName: &user}),
		func(p *iam.ListSigningCertificatesOutput) []types.SigningCertificate { return p.Certificates },
		func(c types.SigningCertificate) Credential {
			id := aws.ToString(c.CertificateId)
			return Credential{"signing certificate", id, []string{"delete-signing-certificate", "--certificate-id", id}}
		}))
	services, bad := a.iam.ListServiceSpecificCredentials(ctx, &iam.ListServiceSpecificCredentialsInput{UserName: &user})
	switch code, _ := apiError(bad); {
	case code == "NotSupportedService": // in this partition
		return all, err
	case bad != nil:
		return nil, errors.Join(err, translate(on, bad))
	}
	for _, c := range services.ServiceSpecificCredentials {
		id := aws.ToString(c.ServiceSpecificCredentialId)
		all = append(all, Credential{"credential for " + aws.ToString(c.ServiceName), id,
			[]string{"delete-service-specific-credential", "--service-specific-credential-id", id}})
	}
	return all, err
}

// user reads what iam:GetUser returns.
func (a *Account) user(ctx context.Context, name string) (*User, error) {
	out, err := a.iam.GetUser(ctx, &iam.GetUserInput{UserName: &name})
	if err != nil {
		return nil, translate("user "+name, err)
	}
	return &User{Name: name, Tags: tagMap(out.User.Tags), Rights: Rights{Boundary: boundary(out.User.PermissionsBoundary)}}, nil
}

func boundary(b *types.AttachedPermissionsBoundary) string {
	if b == nil {
		return ""
	}
	return aws.ToString(b.PermissionsBoundaryArn)
}

// UserTags reads only the tags of a user.
func (a *Account) UserTags(ctx context.Context, name string) (map[string]string, error) {
	u, err := a.user(ctx, name)
	if err != nil {
		return nil, err
	}
	return u.Tags, nil
}

// KeysUsed finds out which of a user's keys have ever been used.
func (a *Account) KeysUsed(ctx context.Context, u *User) error {
	for i := range u.Keys {
		out, err := a.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &u.Keys[i].ID})
		if err != nil {
			return translate("user "+u.Name, err)
		}
		u.Keys[i].Used = out.AccessKeyLastUsed != nil && out.AccessKeyLastUsed.LastUsedDate != nil
	}
	return nil
}

// CreateKey creates an access key for a user.
func (a *Account) CreateKey(ctx context.Context, user string) (NewKey, error) {
	// A retry after a lost response could create a second key that nobody knows of.
	once := func(o *iam.Options) { o.Retryer = aws.NopRetryer{} }
	var out *iam.CreateAccessKeyOutput
	if err := a.Do(ctx, Call{"user " + user, func(ctx context.Context, a *Account) (err error) {
		out, err = a.iam.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &user}, once)
		return err
	}}); err != nil {
		return NewKey{}, err
	}
	return NewKey{aws.ToString(out.AccessKey.AccessKeyId), aws.ToString(out.AccessKey.SecretAccessKey)}, nil
}

// Role reads a role; nil if there is none.
func (a *Account) Role(ctx context.Context, name string) (*Role, error) {
	r, err := a.role(ctx, name)
	if err != nil {
		return nil, unlessNone(err)
	}
	on := "role " + name
	if err = rights(ctx, on, &r.Rights,
		iam.NewListAttachedRolePoliciesPaginator(a.iam, &iam.ListAttachedRolePoliciesInput{RoleName: &name}),
		func(p *iam.ListAttachedRolePoliciesOutput) []types.AttachedPolicy { return p.AttachedPolicies },
		iam.NewListRolePoliciesPaginator(a.iam, &iam.ListRolePoliciesInput{RoleName: &name}),
		func(p *iam.ListRolePoliciesOutput) []string { return p.PolicyNames },
		func(policy string) (*iam.GetRolePolicyOutput, error) {
			return a.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &name, PolicyName: &policy})
		}, func(p *iam.GetRolePolicyOutput) *string { return p.PolicyDocument }); err != nil {
		return nil, err
	}
	r.Profiles, err = every(ctx, on, iam.NewListInstanceProfilesForRolePaginator(a.iam,
		&iam.ListInstanceProfilesForRoleInput{RoleName: &name}),
		func(p *iam.ListInstanceProfilesForRoleOutput) []types.InstanceProfile { return p.InstanceProfiles },
		func(p types.InstanceProfile) string { return aws.ToString(p.InstanceProfileName) })
	return r, err
}

// role reads what iam:GetRole returns.
func (a *Account) role(ctx context.Context, name string) (*Role, error) {
	out, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		return nil, translate("role "+name, err)
	}
	return &Role{Name: name, Trust: decode(out.Role.AssumeRolePolicyDocument), Tags: tagMap(out.Role.Tags),
		Rights: Rights{Boundary: boundary(out.Role.PermissionsBoundary)}}, nil
}

// RoleTags reads only the tags of a role; nil if there is none: IAM may still list a deleted one.
func (a *Account) RoleTags(ctx context.Context, name string) (map[string]string, error) {
	r, err := a.role(ctx, name)
	if err != nil {
		return nil, unlessNone(err)
	}
	return r.Tags, nil
}

// RolesOfProfile returns the roles in an instance profile: their paths, without the first slash, and names.
func (a *Account) RolesOfProfile(ctx context.Context, profile string) (names []string, err error) {
	out, err := a.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &profile})
	if err != nil {
		return nil, translate("instance profile "+profile, err)
	}
	for _, r := range out.InstanceProfile.Roles {
		names = append(names, strings.TrimPrefix(aws.ToString(r.Path), "/")+aws.ToString(r.RoleName))
	}
	return names, nil
}

// Trusted returns the services that may assume a role, by its trust policy.
func (a *Account) Trusted(ctx context.Context, role string) (services []string, err error) {
	r, err := a.role(ctx, role)
	if err != nil {
		return nil, err
	}
	var document struct {
		Statement []struct {
			Effect    string
			Principal struct{ Service oneOrMore }
		}
	}
	if json.Unmarshal([]byte(r.Trust), &document) != nil {
		return nil, nil // a principal of another form is no service
	}
	for _, s := range document.Statement {
		if s.Effect == "Allow" {
			services = append(services, s.Principal.Service...)
		}
	}
	return services, nil
}

// oneOrMore is a string or a list of strings: policies have both.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// Policy reads a customer managed policy; nil if there is none: IAM may still list a deleted one.
func (a *Account) Policy(ctx context.Context, name, arn string) (*Policy, error) {
	out, err := a.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: &arn})
	if err != nil {
		return nil, unlessNone(translate(arn, err))
	}
	p := &Policy{Name: name, ARN: arn, Tags: tagMap(out.Policy.Tags)}
	if p.Versions, err = every(ctx, arn,
		iam.NewListPolicyVersionsPaginator(a.iam, &iam.ListPolicyVersionsInput{PolicyArn: &arn}),
		func(page *iam.ListPolicyVersionsOutput) []types.PolicyVersion { return page.Versions },
		func(v types.PolicyVersion) Version {
			return Version{aws.ToString(v.VersionId), v.IsDefaultVersion, aws.ToTime(v.CreateDate)}
		}); err != nil {
		return nil, err
	}
	in := &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: out.Policy.DefaultVersionId}
	version, err := a.iam.GetPolicyVersion(ctx, in)
	if err != nil {
		return nil, translate(arn, err)
	}
	p.Document = decode(version.PolicyVersion.Document)
	_, err = every(ctx, arn,
		iam.NewListEntitiesForPolicyPaginator(a.iam, &iam.ListEntitiesForPolicyInput{PolicyArn: &arn}),
		func(page *iam.ListEntitiesForPolicyOutput) []any {
			for _, u := range page.PolicyUsers {
				p.Users = append(p.Users, aws.ToString(u.UserName))
			}
			for _, r := range page.PolicyRoles {
				p.Roles = append(p.Roles, aws.ToString(r.RoleName))
			}
			for _, g := range page.PolicyGroups {
				p.Groups = append(p.Groups, aws.ToString(g.GroupName))
			}
			return nil
		}, itself)
	return p, err
}

// rights reads the policies of a user or a role.
func rights[Attached, Inline, Options, Policy any](ctx context.Context, on string, r *Rights,
	attached pages[Attached, Options], policies func(*Attached) []types.AttachedPolicy,
	inline pages[Inline, Options], names func(*Inline) []string,
	read func(name string) (*Policy, error), document func(*Policy) *string) (err error) {
	r.Attached, err = every(ctx, on, attached, policies,
		func(p types.AttachedPolicy) string { return aws.ToString(p.PolicyArn) })
	if err != nil {
		return err
	}
	all, err := every(ctx, on, inline, names, itself)
	r.Inline = map[string]string{}
	for _, name := range all {
		policy, err := read(name)
		if err != nil {
			return translate(on, err)
		}
		r.Inline[name] = decode(document(policy))
	}
	return err
}

func tagMap(tags []types.Tag) map[string]string {
	return mapOf(tags, func(t types.Tag) (key, value *string) { return t.Key, t.Value })
}

// decode reverses the URL encoding in which IAM returns policy documents.
func decode(document *string) string {
	text := aws.ToString(document)
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}
