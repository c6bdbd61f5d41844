using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Nbd.Server;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Nbd;

/// <summary>TLS of client and server.</summary>
public sealed class NbdTlsTests : NbdFixture
{
    private string Certificates => Path.Combine(Folder, "certificates");

    [SetUp]
    public void MakeCertificates()
    {
        Directory.CreateDirectory(Certificates);
        MakeAuthority(Certificates);
    }

    [Test]
    public async Task A_disk_is_used_by_TLS()
    {
        await using NbdServer server = Serve(options: Options(verifiesClients: true));
        ImageDriver disk = OpenTarget($"{Name(server)}?tls-certs={Certificates}");
        byte[] shadow = new byte[DiskSize];
        await disk.WorkAsync(shadow, new Random(1), 400);
        Assert.That(await disk.ReadAsync(0, DiskSize), Is.EqualTo(shadow));
    }

    [Test]
    public async Task Who_cannot_be_trusted_is_refused()
    {
        await using NbdServer server = Serve(options: Options(verifiesClients: true));
        string name = Name(server);
        Assert.That(
            () => OpenTarget(name.Replace("nbds:", "nbd:", StringComparison.Ordinal)),
            Throws.TypeOf<TargetException>().With.Message.Contains("it wants TLS: write nbds:"));
        Assert.That(
            () => OpenTarget(name), Throws.TypeOf<TargetException>().With.Message.Contains("TLS: "),
            "this host does not know who signed it");
        Assert.That(
            () => OpenTarget($"{name}?tls-certs={Certificates}&tls-hostname=other"),
            Throws.TypeOf<TargetException>().With.Message.Contains("RemoteCertificateNameMismatch"));
        Assert.That(
            () => OpenTarget($"{name}?tls-certs=/nowhere"),
            Throws.TypeOf<TargetException>().With.Message.Contains("the certificates in /nowhere cannot be used"));

        string strangers = Path.Combine(Folder, "strangers");
        Directory.CreateDirectory(strangers);
        MakeAuthority(strangers);
        Assert.That(
            () => OpenTarget($"{name}?tls-certs={strangers}"),
            Throws.TypeOf<TargetException>().With.Message.Contains("TLS: "), "a server of another authority");
        File.Copy(Path.Combine(Certificates, "ca-cert.pem"), Path.Combine(strangers, "ca-cert.pem"), overwrite: true);
        Assert.That(
            () => OpenTarget($"{name}?tls-certs={strangers}"), Throws.TypeOf<TargetException>(),
            "a client of another authority");
        File.Delete(Path.Combine(strangers, "client-cert.pem"));
        Assert.That(
            () => OpenTarget($"{name}?tls-certs={strangers}"), Throws.TypeOf<TargetException>(),
            "a client that does not say who it is");

        ImageDriver disk = OpenTarget($"{name}?tls-certs={Certificates}");
        await disk.WriteAsync(0, Bytes(1, 512));
    }

    private NbdServerOptions Options(bool verifiesClients) =>
        new NbdServerOptions(new IPEndPoint(IPAddress.Loopback, 0)).WithTls(Certificates, verifiesClients);

    private static string Name(NbdServer server) => $"nbds://localhost:{((IPEndPoint)server.Place).Port}/";

    // An authority, and certificates of it for a server and a client.
    private static void MakeAuthority(string folder)
    {
        DateTimeOffset from = DateTimeOffset.UtcNow.AddDays(-1), until = DateTimeOffset.UtcNow.AddDays(1);
        using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        CertificateRequest request = new("CN=authority", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(
            new X509BasicConstraintsExtension(certificateAuthority: true, false, 0, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        using X509Certificate2 authority = request.CreateSelfSigned(from, until);
        File.WriteAllText(Path.Combine(folder, "ca-cert.pem"), authority.ExportCertificatePem());
        foreach (string name in (string[])["server", "client"])
        {
            using ECDsa own = ECDsa.Create(ECCurve.NamedCurves.nistP256);
            CertificateRequest wanted = new("CN=localhost", own, HashAlgorithmName.SHA256);
            SubjectAlternativeNameBuilder names = new();
            names.AddDnsName("localhost");
            wanted.CertificateExtensions.Add(names.Build());
            using X509Certificate2 certificate = wanted.Create(
                authority, from, until, RandomNumberGenerator.GetBytes(8));
            File.WriteAllText(Path.Combine(folder, $"{name}-cert.pem"), certificate.ExportCertificatePem());
            File.WriteAllText(Path.Combine(folder, $"{name}-key.pem"), own.ExportPkcs8PrivateKeyPem());
        }
    }
}
