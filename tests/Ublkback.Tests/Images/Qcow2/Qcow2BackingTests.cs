using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>Which file an image means by the name of its backing file, and which the target allows.</summary>
public sealed class Qcow2BackingTests : Qcow2Fixture
{
    [Test]
    public async Task A_relative_name_starts_in_the_folder_as_it_was_named_and_the_kernel_resolves_it()
    {
        Directory.CreateDirectory(PathOf("pool/vm1"));
        File.WriteAllBytes(PathOf("pool/golden.raw"), [.. Enumerable.Repeat((byte)1, 65536)]);
        File.WriteAllBytes(PathOf("golden.raw"), [.. Enumerable.Repeat((byte)2, 65536)]);
        MakeByQemu("pool/vm1/web.qcow2", 65536, "-b", "../golden.raw", "-F", "raw");
        File.CreateSymbolicLink(PathOf("current"), PathOf("pool/vm1"));
        foreach (string allowed in new[] { "allow", PathOf("pool"), Folder })
        {
            ImageDriver disk = Open($"qcow2:{PathOf("current/web.qcow2")}?backing={allowed}");
            await using (disk.Image) Assert.That(await disk.ReadAsync(0, 512), Is.All.EqualTo(1), allowed);
        }

        BlockTarget? backing = new Qcow2Opener(Catalog()).FindBacking(
            BlockTarget.Parse($"qcow2:{PathOf("current/web.qcow2")}?backing=allow"));
        ImageDriver below = Open(backing!.Location); // what a commit writes
        await using (below.Image) Assert.That(await below.ReadAsync(0, 512), Is.All.EqualTo(1));
        Assert.That(Qcow2Tool.Read(PathOf("current/../vm1/web.qcow2")).VirtualSize, Is.EqualTo(65536));
    }

    [Test]
    public void A_folder_allows_what_lies_in_it_and_not_what_a_link_in_it_leads_to()
    {
        Directory.CreateDirectory(PathOf("images/base"));
        File.WriteAllBytes(PathOf("secret"), new byte[65536]);
        File.WriteAllBytes(PathOf("images/base/golden"), new byte[65536]);
        File.CreateSymbolicLink(PathOf("images/out"), PathOf("secret"));
        File.CreateSymbolicLink(PathOf("images/away"), Folder);
        File.CreateSymbolicLink(PathOf("images/in"), "base/golden");
        File.CreateSymbolicLink(PathOf("all"), PathOf("images"));
        foreach ((string name, bool isAllowed) in new[]
        {
            ("out", false), ("away/secret", false), ("../secret", false), (PathOf("secret"), false),
            ("in", true), ("base/golden", true), ("base/../base/golden", true), (PathOf("all/base/golden"), true),
        })
        {
            string image = MakeByQemu("images/a.qcow2", 65536, "-u", "-b", name, "-F", "raw");
            foreach (string folder in new[] { PathOf("images"), PathOf("all") })
            {
                string target = $"qcow2:{image}?backing={folder}";
                if (isAllowed) Open(target).Image.DisposeAsync().AsTask().GetAwaiter().GetResult();
                else
                    Assert.That(
                        () => Open(target), Throws.TypeOf<TargetException>().With.Message.Contains("does not allow"),
                        name);
            }
        }
    }

    [TestCase("")]
    [TestCase("?backing=no")]
    [TestCase("?backing=/elsewhere")]
    public void A_commit_is_refused_what_the_target_does_not_allow(string options)
    {
        File.WriteAllBytes(PathOf("victim"), new byte[65536]);
        string image = MakeByQemu("a.qcow2", 65536, "-b", PathOf("victim"), "-F", "raw");
        Assert.That(
            () => new Qcow2Opener(Catalog()).FindBacking(BlockTarget.Parse($"qcow2:{image}{options}")),
            Throws.TypeOf<TargetException>().With.Message.Contains("backing=allow"));
    }

    [TestCase("symbolic link")]
    [TestCase("hard link")]
    [TestCase("another image")]
    public void An_image_that_backs_itself_is_found_at_once(string how)
    {
        string image = MakeByQemu("a.qcow2", 65536);
        string other = PathOf("b.qcow2");
        if (how == "symbolic link") File.CreateSymbolicLink(other, image);
        else if (how == "hard link") Run("ln", image, other);
        else MakeByQemu("b.qcow2", 65536, "-u", "-b", "./a.qcow2", "-F", "qcow2");
        Run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", other, image);
        foreach (bool isReadOnly in new[] { false, true })
        {
            Assert.That(
                () => Open($"qcow2:{image}?backing=allow", isReadOnly),
                Throws.TypeOf<TargetException>().With.Message.Contains("is its own backing file"));
        }
    }

    [TestCase("./web.12:30.raw", "raw")]
    [TestCase("file:web.12:30.raw", "raw")]
    [TestCase("host_device:FOLDER/web.12:30.raw", "raw")]
    [TestCase("FOLDER/web.12:30.raw", "host_device")]
    [TestCase("FOLDER/web.12:30.raw", "file")]
    [TestCase("""json:{"driver":"raw","file":{"driver":"file","filename":"FOLDER/web.12:30.raw"}}""", "raw")]
    [TestCase("""json:{"driver":"raw","file.driver":"host_device","file.filename":"FOLDER/web.12:30.raw"}""", null)]
    [TestCase("""json:{"driver":"file","filename":"FOLDER/web.12:30.raw","locking":"off"}""", "raw")]
    [TestCase("""json:{"file.filename":"FOLDER/web.12:30.raw","read-only":true}""", "raw")]
    public async Task A_name_is_understood_as_QEMU_does(string name, string? format)
    {
        File.WriteAllBytes(PathOf("web.12:30.raw"), [.. Enumerable.Repeat((byte)3, 65536)]);
        ImageDriver disk = Open($"qcow2:{Make(name, format)}?backing={Folder}");
        await using (disk.Image) Assert.That(await disk.ReadAsync(0, 512), Is.All.EqualTo(3));
    }

    [TestCase("web.12:30.raw", "raw", "if it is a file with a colon in its name, put ./ before it")]
    [TestCase("raw:FOLDER/x?share=unsafe", "raw", "cannot open raw:")]
    [TestCase("json:{nothing", "raw", "cannot be read")]
    [TestCase("""json:{"driver":"raw","file.filename":"relative"}""", "raw", "the relative file name relative")]
    [TestCase("""json:{"driver":"raw","file.filename":"/x","offset":512}""", "raw", "the option offset")]
    [TestCase("""json:{"driver":"raw","file":{"driver":"nbd","host":"h"}}""", "raw", "the driver nbd")]
    [TestCase("""json:{"driver":"qcow2","file.filename":"/x"}""", "raw", "the driver qcow2")]
    [TestCase("""json:{"driver":"vmdk","file.filename":"/x"}""", null, "is vmdk")]
    [TestCase("""json:{"file.filename":"/x"}""", null, "does not say of which format")]
    [TestCase("""json:{"driver":"raw"}""", null, "no file name")]
    public void A_name_that_is_not_understood_is_refused_with_what_is_wrong(string name, string? format, string part) =>
        Assert.That(
            () => Open($"qcow2:{Make(name, format)}?backing=allow"),
            Throws.TypeOf<TargetException>().With.Message.Contains(part));

    // By hand: QEMU looks at what it is given.
    private string Make(string name, string? format)
    {
        byte[] image = Qcow2Creator.Make(65536, 16, (name.Replace("FOLDER", Folder, StringComparison.Ordinal),
            format ?? "none"));
        if (format is null) image.AsSpan(112, 4).Fill(0xEE); // another extension, which nobody knows
        File.WriteAllBytes(PathOf("over.qcow2"), image);
        return PathOf("over.qcow2");
    }
}
