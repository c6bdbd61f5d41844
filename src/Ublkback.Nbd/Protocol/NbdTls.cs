using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Ublkback.Block;

namespace Ublkback.Nbd.Protocol;

/// <summary>
/// Certificates in a folder, with the names that QEMU, libnbd and nbdkit use: <c>ca-cert.pem</c>,
/// <c>client-cert.pem</c> and
/// <c>client-key.pem</c>, <c>server-cert.pem</c> and <c>server-key.pem</c>. Reading them blocks.
/// </summary>
internal static class NbdTls
{
    /// <summary>How a client proves who the server is, and who itself is.</summary>
    /// <param name="host">The name that the server's certificate must have.</param>
    /// <param name="folder">The certificates; null for those that this host trusts.</param>
    /// <exception cref="TargetException">A file is missing or no certificate.</exception>
    public static SslClientAuthenticationOptions ForClient(string host, string? folder)
    {
        SslClientAuthenticationOptions options = new() { TargetHost = host };
        if (folder is null) return options;
        options.CertificateChainPolicy = TrustOnly(folder);
        if (File.Exists(Path.Combine(folder, "client-cert.pem"))) options.ClientCertificates = [Load(folder, "client")];
        return options;
    }

    /// <summary>How a server proves who it is.</summary>
    /// <param name="folder">The certificates.</param>
    /// <param name="verifiesClients">Whether clients must have a certificate of <c>ca-cert.pem</c>.</param>
    /// <exception cref="TargetException">A file is missing or no certificate.</exception>
    public static SslServerAuthenticationOptions ForServer(string folder, bool verifiesClients)
    {
        SslServerAuthenticationOptions options =
            new() { ServerCertificate = Load(folder, "server"), ClientCertificateRequired = verifiesClients };
        if (verifiesClients) options.CertificateChainPolicy = TrustOnly(folder);
        return options;
    }

    private static X509ChainPolicy TrustOnly(string folder)
    {
        X509ChainPolicy policy = new()
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            DisableCertificateDownloads = true
        };
        Try(folder, () => policy.CustomTrustStore.ImportFromPemFile(Path.Combine(folder, "ca-cert.pem")));
        if (policy.CustomTrustStore.Count == 0)
            throw new TargetException($"there is no certificate in {folder}/ca-cert.pem");
        return policy;
    }

    private static X509Certificate2 Load(string folder, string name)
    {
        X509Certificate2? certificate = null;
        Try(
            folder,
            () => certificate = X509Certificate2.CreateFromPemFile(
                Path.Combine(folder, $"{name}-cert.pem"), Path.Combine(folder, $"{name}-key.pem")));
        return certificate!;
    }

    private static void Try(string folder, Action read)
    {
        try
        {
            read();
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException or CryptographicException)
        {
            throw new TargetException($"the certificates in {folder} cannot be used: {failure.Message}", failure);
        }
    }
}
