using System.Security.Cryptography;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Hooks.Crypt;

namespace Ublkback.Tests.Hooks;

public sealed class CryptTests : HookFixture
{
    // Made with Python's cryptography: AES-XTS, the tweak being the sector's number in 16 little-endian bytes.
    [TestCase(32, 0UL, "08c292be92ef55becb93338bd5df8abfc414cfd92b89e4dbc03a0a8270ee01f5")]
    [TestCase(32, 1UL, "69c8189af3bbd5ca51cb0905b01fc0b6974bb1b25b0ed21c2933bbad89683029")]
    [TestCase(32, 0x123456789aUL, "ba3020962972b96082031fc263573ef7e525495726ae55bce299b410823f4ae3")]
    [TestCase(64, 0UL, "46f23e3fb978919fe08ec9573e119e1286b30c83a8f9db05a998f1c6279cb80e")]
    [TestCase(64, 1UL, "bc3c7855076aba96f2ce86c2de109311df8264dbf70af537f8ef575590dc3fec")]
    [TestCase(64, 0x123456789aUL, "db6312754dad4904e7748cbf813fa1bb25a80df4811fc0e3aff6cc9dde887ca4")]
    public void Encrypts_as_others_do(int keyLength, ulong sector, string sha256)
    {
        using XtsCipher cipher = new(Key(keyLength));
        byte[] data = [.. Enumerable.Range(0, 512).Select(i => (byte)((i * 7) + (long)sector))];
        byte[] encrypted = new byte[512];
        cipher.Encrypt(sector, data, encrypted);
        Assert.That(Hash(encrypted), Is.EqualTo(sha256));

        cipher.Decrypt(sector, encrypted, encrypted);
        Assert.That(encrypted, Is.EqualTo(data));
    }

    [Test]
    public void Encrypts_long_runs_sector_by_sector()
    {
        using XtsCipher cipher = new(Key(64));
        byte[] data = [.. Enumerable.Range(7 * 512, 300 * 512).Select(i => (byte)(i * 13))];
        cipher.Encrypt(7, data, data);
        Assert.That(Hash(data), Is.EqualTo("4d6427085e06fda0e867c04aa3a0f89f737e2e2d4f9c041c4ad3c6de00676928"));
    }

    [Test]
    public async Task Guests_see_data_and_images_do_not()
    {
        string key = MakeKey(64, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        byte[] data = [.. Enumerable.Range(0, 8192).Select(i => (byte)(i % 251))];
        byte[] written = [.. data], read = new byte[8192];
        await using IBlockImage image = Open($"crypt(key={key})");
        Assert.That(await WriteAsync(image, 24, written), Is.EqualTo(BlockStatus.Okay));
        Assert.That(written, Is.EqualTo(data), "a request that is made again writes the same");
        Assert.That(await ReadAsync(image, 24, read), Is.EqualTo(BlockStatus.Okay));
        Assert.That(read, Is.EqualTo(data));

        using XtsCipher cipher = new(Key(64));
        byte[] kept = Content[(24 * 512)..((24 * 512) + 8192)];
        cipher.Decrypt(24, kept, kept);
        Assert.That(kept, Is.EqualTo(data));
        Assert.That(image.Geometry.DiscardGranularity, Is.Zero);
    }

    [Test]
    public async Task A_failed_read_is_not_decrypted()
    {
        string key = MakeKey(32, UnixFileMode.UserRead);
        byte[] buffer = new byte[512];
        IBlockImage image = Open($"crypt(key={key})+fault");
        Assert.That(await ReadAsync(image, 0, buffer), Is.EqualTo(BlockStatus.IoError));
        Assert.That(buffer, Is.All.Zero);
    }

    [TestCase(64, UnixFileMode.UserRead | UnixFileMode.GroupRead, "chmod 600")]
    [TestCase(64, UnixFileMode.UserRead | UnixFileMode.OtherWrite, "chmod 600")]
    [TestCase(65, UnixFileMode.UserRead, "has 65 bytes")]
    [TestCase(0, UnixFileMode.UserRead, "has 0 bytes")]
    public void Refuses_keys_that_are_not_right(int length, UnixFileMode mode, string part) =>
        Assert.That(
            () => Open($"crypt(key={MakeKey(length, mode)})"),
            Throws.TypeOf<TargetException>().With.Message.Contains(part));

    [TestCase("crypt", "write crypt(key=")]
    [TestCase("crypt(key=/nowhere/key)", "cannot be read")]
    public void Refuses_missing_keys(string hook, string part) =>
        Assert.That(() => Open(hook), Throws.TypeOf<TargetException>().With.Message.Contains(part));

    private static byte[] Key(int length) => [.. Enumerable.Range(1, length).Select(i => (byte)i)];

    private static string Hash(byte[] data) => Convert.ToHexStringLower(SHA256.HashData(data));

    private string MakeKey(int length, UnixFileMode mode)
    {
        string path = Path.Combine(Scratch, $"key-{length}-{(int)mode}");
        File.WriteAllBytes(path, Key(length));
        File.SetUnixFileMode(path, mode);
        return path;
    }
}
