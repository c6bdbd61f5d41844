using NUnit.Framework;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Xenbus;

namespace Ublkback.Tests.Backend;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class VbdJournalTests : IDisposable
{
    private static readonly VbdAddress Address = new("vbd", 1, 51712);

    private static readonly JournalIdentity Identity = new(
        "/front", "/vm/a", "raw: inode 7 on 8:1", "x86_64-abi",
        [new FrontendQueue(7, [8, 9]), new FrontendQueue(10, [11, 12])]);

    private readonly string _path = Directory.CreateTempSubdirectory("ublkback-test-").FullName;

    public void Dispose() => Directory.Delete(_path, recursive: true);

    private static IEnumerable<TestCaseData> Others()
    {
        yield return new TestCaseData(Identity with { Frontend = "/other" }, "its guest is another one now");
        yield return new TestCaseData(Identity with { Machine = "/vm/b" }, "its guest is another one now");
        yield return new TestCaseData(Identity with { Machine = null }, "its guest is another one now");
        yield return new TestCaseData(Identity with { Protocol = "x86_32-abi" }, "the guest's rings are others now");
        yield return new TestCaseData(
            Identity with { Queues = [Identity.Queues[0]] }, "the guest's rings are others now");
        yield return new TestCaseData(
            Identity with { Queues = [Identity.Queues[0], new FrontendQueue(10, [12, 11])] },
            "the guest's rings are others now");
        yield return new TestCaseData(Identity with { Image = "raw: inode 8 on 8:1" }, "its image is another one now");
    }

    [Test]
    public void Is_found_again_with_all_that_it_says()
    {
        JournalDirectory journals = new(_path);
        Assert.That(journals.Open(Address), Is.Null);
        journals.Create(Address, Identity).Dispose();

        using (VbdJournal first = journals.Open(Address)!)
        {
            Assert.That(first.HasLostWrites, Is.False);
            first.HasLostWrites = true;
        }

        using VbdJournal journal = journals.Open(Address)!;
        Assert.That(journal.HasLostWrites, Is.True);
        Assert.That(Identity.DifferenceFrom(journal.Identity), Is.Null);
        Assert.That(journal.Ring(1).SlotCount, Is.EqualTo(64));
        journals.Remove(Address);
        Assert.That(journals.Open(Address), Is.Null);
    }

    [TestCaseSource(nameof(Others))]
    public void Does_not_fit_other_rings(JournalIdentity other, string reason) =>
        Assert.That(Identity.DifferenceFrom(other), Does.StartWith(reason));

    [TestCase(0, 0x00, "is not a journal")]
    [TestCase(8, 0x03,
        "has journal format 3, and this daemon knows 2: start the ublkback that wrote it; the disk stays as it is")]
    [TestCase(16, 0xFF, "is not a journal")]
    [TestCase(12, 0x01, "is not a journal")]
    [TestCase(24, 0x00, "is not a journal")]
    public void What_is_no_journal_of_ours_is_refused_and_left(int offset, byte value, string reason)
    {
        JournalDirectory journals = new(_path);
        journals.Create(Address, Identity).Dispose();
        string file = Directory.GetFiles(_path).Single();
        byte[] content = File.ReadAllBytes(file);
        content[offset] = value;
        File.WriteAllBytes(file, content);

        Assert.That(() => journals.Open(Address), Throws.TypeOf<JournalException>().With.Message.Contains(reason));
        Assert.That(File.ReadAllBytes(file), Is.EqualTo(content));
    }

    [Test]
    public void One_that_was_cut_short_is_refused([Values(0, 10, 4096)] int length)
    {
        JournalDirectory journals = new(_path);
        journals.Create(Address, Identity).Dispose();
        using (FileStream file = File.OpenWrite(Directory.GetFiles(_path).Single())) file.SetLength(length);

        Assert.That(() => journals.Open(Address), Throws.TypeOf<JournalException>());
    }

    [Test]
    public void Those_of_devices_that_are_gone_are_removed()
    {
        JournalDirectory journals = new(_path);
        VbdAddress other = new("vbd3", 2, 51712);
        journals.Create(Address, Identity).Dispose();
        journals.Create(other, Identity).Dispose();

        journals.KeepOnly([other]);

        Assert.That(journals.Open(Address), Is.Null);
        using VbdJournal kept = journals.Open(other)!;
        Assert.That(kept, Is.Not.Null);
    }
}
